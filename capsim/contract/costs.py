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
    """Present value of signing that quote in the first month, shape (samples,).

    It is signed for the nodes of that month, its minimum at least; what the load takes beyond is flexible. Where it
    ends a new one is signed, at the rate where quotes stand then, if that is cheaper than flexible nodes are. Once it
    may be broken, it is as soon as what is cheaper then, a new one or none, beats it by more than the fee: nobody knows
    what comes later. Of a term that outlasts the horizon, only what lies inside it counts.
    """
    samples, months = world.nodes.shape
    total = np.zeros(samples)
    rate, signed = np.zeros(samples), np.zeros(samples)
    age = np.full(samples, quote.term_months)
    to_come = 1 - quote.prepayment_fraction
    for month in range(months):
        nodes, flexible_usd = world.nodes[:, month], world.flexible_usd[:, month]
        left = np.minimum(quote.term_months - age, months - month)
        new, none = quote.usd_per_hour * world.quotes[:, month], flexible_usd / nodes / HOURS_PER_MONTH
        breaks = _breaks(quote, np.minimum(new, none), rate, age) & (left > 0)
        fee = np.where(breaks, quote.break_fee_fraction * to_come * rate * signed * left, 0.0)
        free = breaks | (left <= 0)
        signs = free & ((new < none) | (month == 0))
        rate = np.where(signs, new, np.where(free, 0.0, rate))
        signed = np.where(signs, np.maximum(nodes, quote.minimum_nodes), np.where(free, 0.0, signed))
        age = np.where(signs, 0, np.where(free, quote.term_months, age))
        inside = min(quote.term_months, months - month)
        prepaid = np.where(signs, quote.prepayment_fraction * rate * signed * inside, 0.0)
        rent = (fee + prepaid + to_come * rate * signed) * HOURS_PER_MONTH
        total += (rent + np.maximum(nodes - signed, 0) / nodes * flexible_usd) * world.discount[month]
        age = age + 1
    return total


def _breaks(quote: Quote, otherwise: np.ndarray, rate: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Whether a contract is left: it may be, and what else there is beats the rent to come by more than the fee."""
    if quote.break_after_months is None:
        return np.zeros(len(rate), dtype=bool)
    kept = rate * (1 - quote.prepayment_fraction) * (1 - quote.break_fee_fraction)
    return (age >= quote.break_after_months) & (otherwise < kept * (1 - 1e-9))
