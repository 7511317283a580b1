"""Latency targets."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.hardware import PositiveSeconds


class Thresholds(BaseModel):
    """Upper limits of a request's latencies; ``itl_s`` bounds its longest gap between two tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ttft_s: PositiveSeconds | None = None
    tpot_s: PositiveSeconds | None = None
    itl_s: PositiveSeconds | None = None
    e2e_s: PositiveSeconds | None = None

    @property
    def thresholds(self) -> dict[str, float]:
        limits = {name: getattr(self, name) for name in Thresholds.model_fields}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @model_validator(mode="after")
    def _some_threshold(self) -> "Thresholds":
        if not self.thresholds:
            raise ValueError("give at least one threshold: ttft_s, tpot_s, itl_s or e2e_s")
        return self


class SLO(Thresholds):
    """Latency target: at least ``attained`` of the offered requests stay inside every threshold given.

    ``later_turns`` replace thresholds for all but the first turn of a session.
    """

    attained: float = Field(0.95, gt=0, le=1)
    later_turns: Thresholds | None = None

    @property
    def later_thresholds(self) -> dict[str, float]:
        """What holds for later turns."""
        return self.thresholds | (self.later_turns.thresholds if self.later_turns else {})
