"""What a node costs: an all-in hourly rate, a quote for a term, or the parts of owning it. They exclude one another."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from capsim.hardware import Watts

HOURS_PER_MONTH = 730.0
STALE = timedelta(days=180)
"""Prices move by halves in half a year: older ones are told of."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OwnPrice(_Spec):
    """Owning a node, bottom up.

    ``network_fraction`` (of the purchase) is what connects nodes, and is worth nothing in the end;
    ``residual_fraction`` is what the node itself sells for then. ``capital_rate`` is the yearly cost of the capital
    that is bound, ``staff_usd_per_month`` that of the people, a node's share.
    """

    purchase_usd: float = Field(gt=0)
    life_years: float = Field(gt=0)
    power_w: Watts
    power_usage_effectiveness: float = Field(1.25, ge=1)
    electricity_usd_per_kwh: float = Field(ge=0)
    colocation_usd_per_kw_month: float = Field(0, ge=0)
    network_fraction: float = Field(0, ge=0)
    residual_fraction: float = Field(0, ge=0, lt=1)
    capital_rate: float = Field(0, ge=0)
    staff_usd_per_month: float = Field(0, ge=0)


class Quote(_Spec):
    """A rent for a term: all-in by the node-hour, paid whether the node is used or not.

    ``minimum_nodes`` are paid at least. ``prepayment_fraction`` of the whole term's rent is due when it begins.
    ``break_after_months`` is when the renter may leave first, for ``break_fee_fraction`` of the rent still to come.
    """

    usd_per_hour: float = Field(gt=0)
    term_months: PositiveInt
    minimum_nodes: NonNegativeInt = 0
    prepayment_fraction: float = Field(0, ge=0, le=1)
    break_after_months: PositiveInt | None = None
    break_fee_fraction: float = Field(0, ge=0, le=1)

    @model_validator(mode="after")
    def _break_inside(self) -> "Quote":
        if self.break_after_months is None and self.break_fee_fraction:
            raise ValueError("a break_fee_fraction needs a break_after_months: when the renter may leave first")
        if self.break_after_months is not None and self.break_after_months >= self.term_months:
            raise ValueError(
                f"break_after_months {self.break_after_months} are not inside the {self.term_months} of it"
            )
        return self


class Price(_Spec):
    """One way to pay for one node type."""

    name: str
    node: str
    kind: Literal["rent", "own"]
    usd_per_hour: float | None = Field(None, gt=0)
    quote: Quote | None = None
    own: OwnPrice | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Price":
        if sum(way is not None for way in (self.usd_per_hour, self.quote, self.own)) != 1:
            raise ValueError(
                "give one of: usd_per_hour (all-in), a quote (all-in, for a term), an own block (bottom-up)"
            )
        if (self.own is not None and self.kind == "rent") or (self.quote is not None and self.kind == "own"):
            raise ValueError("a quote is of kind rent, an own block of kind own")
        return self

    @property
    def all_in_usd_per_hour(self) -> float | None:
        """What a node-hour costs where everything is in it; None of a price that is built bottom up."""
        return self.quote.usd_per_hour if self.quote is not None else self.usd_per_hour

    @property
    def by_the_hour(self) -> bool:
        """Whether nodes can be taken and given back each hour."""
        return self.kind == "rent" and self.quote is None


def is_stale(as_of: date | str, on: date) -> bool:
    """Whether a price of that day should not be relied on any more; an undated one says nothing."""
    return not isinstance(as_of, str) and on - as_of > STALE


def stale_notes(prices: Mapping[str, date | str], on: date | None) -> list[str]:
    """Of prices by key, those that are old on that day, by default today: alone in what they say, they depend on it."""
    day = on or date.today()
    old = f"more than {STALE.days} days old" + (f" on {on}" if on else "")
    return [f"price {key} is of {as_of}, {old}" for key, as_of in prices.items() if is_stale(as_of, day)]
