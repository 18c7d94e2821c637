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
    """Print one line, and raise `CheckError` unless ``value`` is as claimed.

    The claim: equal to ``expected`` within the relative tolerance ``rtol`` (absolute where 0 is expected), or
    ``at_least``, or ``at_most``, or both.
    """
    if expected is None and at_least is None and at_most is None:
        raise ValueError("give what is expected, at_least or at_most: a check must be able to fail")
    value = float(value)
    claims = []
    if expected is not None:
        claims.append((abs(value - expected) <= rtol * (abs(expected) or 1), f"expected {expected:.4g} ± {rtol:.2g}"))
    if at_least is not None:
        claims.append((value >= at_least, f"at least {at_least:.4g}"))
    if at_most is not None:
        claims.append((value <= at_most, f"at most {at_most:.4g}"))
    holds = all(true for true, _ in claims)  # a NaN makes every comparison false
    line = f"{'✓' if holds else '✗'} {name}: {value:.4g} ({' and '.join(text for _, text in claims)})"
    if not holds:
        raise CheckError(line)
    print(line)
