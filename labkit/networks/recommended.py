"""Which layers of a network to dream with, and to paint with, unless one says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Names: TypeAlias = str | Iterable[str] | Mapping[str, float]


@dataclass(init=False)
class Recommended:
    """Layers that work well on a network: for dreams, for content and for style.

    Args:
        dream, content, style: a name, names, or names with their weights (1 unless given; of content there are none).

    Example:
        >>> lk.Recommended("relu4_3", "relu4_2", ["relu1_1", "relu2_1"]).style
        {'relu1_1': 1.0, 'relu2_1': 1.0}
    """

    dream: Mapping[str, float]
    content: tuple[str, ...]
    style: Mapping[str, float]

    def __init__(self, dream: Names, content: Names, style: Names):
        self.dream, self.content, self.style = _weighted(dream), tuple(_weighted(content)), _weighted(style)

    @classmethod
    def guess(cls, names: list[str]) -> Recommended:
        """Of layers, shallow to deep: one where the deepest third begins, the middle one, and five from first to it."""
        deep = 2 * len(names) // 3
        return cls(
            names[deep : deep + 1],
            names[len(names) // 2 :][:1],
            [names[round(deep * k / 4)] for k in range(5) if names],
        )


def _weighted(layers: Names) -> dict[str, float]:
    if isinstance(layers, Mapping):
        return dict(layers)
    return dict.fromkeys([layers] if isinstance(layers, str) else layers, 1.0)
