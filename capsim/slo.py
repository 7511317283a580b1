"""Latency targets."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.hardware import PositiveSeconds


class SLO(BaseModel):
    """Latency target: at least ``attained`` of the offered requests stay inside every threshold given.

    ``itl_s`` bounds a request's longest gap between two tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ttft_s: PositiveSeconds | None = None
    tpot_s: PositiveSeconds | None = None
    itl_s: PositiveSeconds | None = None
    e2e_s: PositiveSeconds | None = None
    attained: float = Field(0.95, gt=0, le=1)

    @property
    def thresholds(self) -> dict[str, float]:
        return {k: v for k, v in self.model_dump(exclude={"attained"}).items() if v is not None}

    @model_validator(mode="after")
    def _some_threshold(self) -> "SLO":
        if not self.thresholds:
            raise ValueError("give at least one threshold: ttft_s, tpot_s, itl_s or e2e_s")
        return self
