"""The terms at which signing costs on average what staying flexible does."""

from collections.abc import Callable
from typing import Any

from capsim.contract.costs import World, committed_usd, flexible_usd
from capsim.prices import Quote

BISECTIONS = 30


def indifferent(world: World, quote: Quote, flexible_usd_per_hour: float) -> dict[str, Any]:
    """Of each term alone, the others as quoted: the rate ``usd_per_hour`` (and its ``discount`` on today's flexible
    rate), the ``break_fee_fraction``, and the longest ``term_months`` that is not dearer than staying flexible.

    None where there is none: no fee between 0 and 1 makes it even, or not even a month is worth signing for.
    """
    target = float(flexible_usd(world).mean())

    def excess(**terms: Any) -> float:
        return float(committed_usd(world, quote.model_copy(update=terms)).mean()) - target

    most = 2 * flexible_usd_per_hour
    while excess(usd_per_hour=most) < 0 and most < 1e3 * flexible_usd_per_hour:
        most *= 2
    usd_per_hour = _zero(lambda rate: excess(usd_per_hour=rate), 0.0, most)
    fee = None
    if quote.break_after_months is not None:
        fee = _zero(lambda share: excess(break_fee_fraction=share), 0.0, 1.0)
    months = world.nodes.shape[1]
    shortest = 1 if quote.break_after_months is None else quote.break_after_months + 1
    worth = [term for term in range(shortest, months + 1) if excess(term_months=term) <= 0]
    return {
        "usd_per_hour": usd_per_hour,
        "discount": None if usd_per_hour is None else 1 - usd_per_hour / flexible_usd_per_hour,
        "break_fee_fraction": fee,
        "term_months": max(worth, default=None),
    }


def _zero(excess: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a rising function crosses 0 between two points, by bisection; None where it does not."""
    if excess(low) > 0 or excess(high) < 0:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return (low + high) / 2
