"""Which layers of a network to dream with, and to paint with, unless one says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recommended:
    """Layers that work well on a network: for dreams, for content and for style.

    Each is a name, names, or names with their weights.
    """

    dream: str | Iterable[str] | Mapping[str, float]
    content: str | Iterable[str]
    style: str | Iterable[str] | Mapping[str, float]

    def __post_init__(self) -> None:
        names = {what: [found] if isinstance(found, str) else found for what, found in vars(self).items()}
        for what in ("dream", "style"):
            found = names[what]
            object.__setattr__(self, what, dict(found) if isinstance(found, Mapping) else dict.fromkeys(found, 1.0))
        object.__setattr__(self, "content", tuple(names["content"]))

    @classmethod
    def guess(cls, names: list[str]) -> Recommended:
        """Of layers, shallow to deep: one where the deepest third begins, the middle one, and five from first to it."""
        deep = 2 * len(names) // 3
        spread = [names[round(deep * k / 4)] for k in range(5)] if names else []
        return cls(names[deep : deep + 1], names[len(names) // 2 :][:1], spread)
