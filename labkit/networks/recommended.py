"""Which layers of a network to dream with, and to paint with, unless one says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, init=False)
class Recommended:
    """Layers that work well on a network: for dreams, for content and for style.

    Each is a name, names, or names with their weights.
    """

    dream: Mapping[str, float]
    content: tuple[str, ...]
    style: Mapping[str, float]

    def __init__(
        self,
        dream: str | Iterable[str] | Mapping[str, float],
        content: str | Iterable[str],
        style: str | Iterable[str] | Mapping[str, float],
    ):
        object.__setattr__(self, "dream", _weighted(dream))
        object.__setattr__(self, "content", tuple(_weighted(content)))
        object.__setattr__(self, "style", _weighted(style))

    @classmethod
    def guess(cls, names: list[str]) -> Recommended:
        """Of layers, shallow to deep: one where the deepest third begins, the middle one, and five from first to it."""
        deep = 2 * len(names) // 3
        spread = [names[round(deep * k / 4)] for k in range(5)] if names else []
        return cls(names[deep : deep + 1], names[len(names) // 2 :][:1], spread)


def _weighted(layers: str | Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    """Layer -> weight, 1 unless one is given."""
    if isinstance(layers, Mapping):
        return dict(layers)
    return dict.fromkeys([layers] if isinstance(layers, str) else layers, 1.0)
