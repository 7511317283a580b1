"""The average over all orders: what each lever adds, whatever its place (Shapley 1953, "A value for n-person games").

Coalitions are bit masks: bit i of a mask says that lever i is pulled.
"""

from collections.abc import Sequence
from math import comb, inf


def filled(values: Sequence[float | None]) -> list[float]:
    """Values of all coalitions, shape (2^n,), with those that cannot be (None) worth the best that can be among their
    own parts: who cannot pull two levers at once pulls the better one. The empty coalition must have a value."""
    whole: list[float] = []
    for mask, value in enumerate(values):
        parts = [whole[mask & ~(1 << bit)] for bit in range(mask.bit_length()) if mask >> bit & 1]
        whole.append(max(parts, default=-inf) if value is None else value)
    return whole


def best_part(values: Sequence[float | None], mask: int) -> int:
    """The coalition that a mask comes to: itself where it can be, else the best of its parts."""
    if values[mask] is not None:
        return mask
    whole = filled(values)
    parts = [mask & ~(1 << bit) for bit in range(mask.bit_length()) if mask >> bit & 1]
    return best_part(values, max(parts, key=lambda part: whole[part]))


def shapley(values: Sequence[float]) -> list[float]:
    """Each player's mean addition over all orders, shape (n,); they add up to the value of all less that of none.

    φ_i = Σ over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)).
    """
    players = len(values).bit_length() - 1
    shares = [0.0] * players
    for mask in range(len(values)):
        size = mask.bit_count()
        for player in range(players):
            if not mask >> player & 1:
                weight = 1 / (players * comb(players - 1, size))
                shares[player] += weight * (values[mask | 1 << player] - values[mask])
    return shares
