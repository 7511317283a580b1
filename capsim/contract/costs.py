"""What a strategy costs in each sample of prices and load, at present value."""

from dataclasses import dataclass

import numpy as np

from capsim.prices import HOURS_PER_MONTH, Quote


@dataclass(frozen=True)
class World:
    """Samples of what may come, each shape (samples, months).

    ``nodes`` are those that the load takes, ``flexible_usd`` what all of it costs by the month, ``quotes`` the rates of
    new quotes relative to today's. ``discount`` (months,) is the present value of a dollar.
    """

    nodes: np.ndarray
    flexible_usd: np.ndarray
    quotes: np.ndarray
    discount: np.ndarray


def flexible_usd(world: World) -> np.ndarray:
    """Present value of staying flexible, shape (samples,)."""
    return world.flexible_usd @ world.discount


def committed_usd(world: World, quote: Quote) -> np.ndarray:
    """Present value of signing that quote, and again whenever it ends, shape (samples,).

    It is signed for the nodes of that month, its minimum at least; what the load takes beyond is flexible. A new term
    is signed at the rate where quotes stand then. Once it may be broken, it is as soon as a new one is cheaper by more
    than the fee: nobody knows what comes later. Of a term that outlasts the horizon, only what lies inside it counts.
    """
    samples, months = world.nodes.shape
    total = np.zeros(samples)
    rate, signed = np.zeros(samples), np.zeros(samples)
    age = np.full(samples, quote.term_months)
    to_come = 1 - quote.prepayment_fraction
    for month in range(months):
        left = np.minimum(quote.term_months - age, months - month)
        now = quote.usd_per_hour * world.quotes[:, month]
        breaks = np.zeros(samples, dtype=bool)
        if quote.break_after_months is not None:
            worth = now < rate * to_come * (1 - quote.break_fee_fraction) * (1 - 1e-9)
            breaks = (age >= quote.break_after_months) & (left > 0) & worth
        fee = np.where(breaks, quote.break_fee_fraction * to_come * rate * signed * left, 0.0)
        signs = breaks | (left <= 0)
        rate = np.where(signs, now, rate)
        signed = np.where(signs, np.maximum(world.nodes[:, month], quote.minimum_nodes), signed)
        age = np.where(signs, 0, age)
        inside = min(quote.term_months, months - month)
        prepaid = np.where(signs, quote.prepayment_fraction * rate * signed * inside, 0.0)
        beyond = np.maximum(world.nodes[:, month] - signed, 0) / world.nodes[:, month]
        rent = (fee + prepaid + to_come * rate * signed) * HOURS_PER_MONTH
        total += (rent + beyond * world.flexible_usd[:, month]) * world.discount[month]
        age = age + 1
    return total
