"""What a node costs: an all-in rate, or its parts. The two exclude each other."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.hardware import Watts

HOURS_PER_MONTH = 730.0


class OwnPrice(BaseModel):
    """Owning a node, bottom up."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    purchase_usd: float = Field(gt=0)
    life_years: float = Field(gt=0)
    power_w: Watts
    power_usage_effectiveness: float = Field(1.25, ge=1)
    electricity_usd_per_kwh: float = Field(ge=0)
    colocation_usd_per_kw_month: float = Field(0, ge=0)
    network_fraction: float = Field(0, ge=0)
    residual_fraction: float = Field(0, ge=0, lt=1)


class Price(BaseModel):
    """One way to pay for one node type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    node: str
    kind: Literal["rent", "own"]
    usd_per_hour: float | None = Field(None, gt=0)
    own: OwnPrice | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Price":
        if self.usd_per_hour is not None and self.own is not None:
            raise ValueError("an all-in usd_per_hour and a bottom-up own block exclude each other: give one")
        if self.usd_per_hour is None and self.own is None:
            raise ValueError("give usd_per_hour (all-in) or an own block (bottom-up)")
        return self
