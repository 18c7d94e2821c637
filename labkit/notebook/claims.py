"""Claims that a notebook makes and checks."""

from __future__ import annotations


class CheckError(AssertionError):
    """A claim of a notebook that does not hold."""


def check(
    name: str,
    value: float,
    expected: float | None = None,
    rtol: float = 1e-3,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Print one line that says what was claimed of ``value`` and that it holds.

    Args:
        expected: what it equals, within ``rtol``, which is relative, or absolute where 0 is expected.
        at_least, at_most: what it is not below, or not above.

    Raises:
        CheckError: if a claim does not hold.
        ValueError: if nothing is claimed.

    Example:
        >>> lk.check("a half of five", 5 / 2, expected=2.5)
        ✓ a half of five: 2.5 (expected 2.5 ± 0.1%)
    """
    value, claims = float(value), []
    if expected is not None:
        allowed, room = (rtol * abs(expected), f"{100 * rtol:.2g}%") if expected else (rtol, f"{rtol:.2g}")
        claims.append((abs(value - expected) <= allowed, f"expected {expected:.4g} ± {room}"))
    if at_least is not None:
        claims.append((value >= at_least, f"at least {at_least:.4g}"))
    if at_most is not None:
        claims.append((value <= at_most, f"at most {at_most:.4g}"))
    if not claims:
        raise ValueError("give what is expected, at_least or at_most: a check must be able to fail")
    holds = all(true for true, _ in claims)  # a NaN makes every comparison false
    line = f"{'✓' if holds else '✗'} {name}: {value:.4g} ({' and '.join(text for _, text in claims)})"
    if not holds:
        raise CheckError(line)
    print(line)
