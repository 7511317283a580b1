"""The tiers file: classes of requests, and where they may be served."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.slo import SLO
from capsim.source import Source, load, validate
from capsim.workload.distributions import Tokens

MOST_ASSIGNMENTS = 20_000


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RequestClass(_Spec):
    """Requests alike: how many, how long, how good the answers must be, and the SLO on nodes of one's own.

    ``hit_rate`` is the share of input that an API's cache holds.
    """

    name: str = Field(min_length=1)
    requests_per_s: float = Field(gt=0)
    prompt_tokens: Tokens
    output_tokens: Tokens
    hit_rate: float = Field(0, ge=0, le=1)
    quality_floor: float = 0
    slo: SLO


class Tier(_Spec):
    """One place to serve: a price list of the catalog (``api``), or nodes as a scenario file has them.

    ``set`` overrides values of the scenario, the model too. ``quality`` is the score on the file's benchmark where the
    catalog has none, with ``quality_source``.
    """

    name: str = Field(min_length=1)
    api: str | None = None
    scenario: Path | None = None
    set: dict[str, Any] = {}
    quality: float | None = None
    quality_source: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Tier":
        if (self.api is None) == (self.scenario is None):
            raise ValueError("give api (a price list of the catalog) or scenario (a file), one of the two")
        if (self.quality is None) != (self.quality_source is None):
            raise ValueError("a quality needs a quality_source, and the other way round")
        return self


class Tiers(_Spec):
    """Classes, tiers, and the ``benchmark`` whose scores are compared."""

    name: str | None = None
    description: str = ""
    benchmark: str
    classes: tuple[RequestClass, ...] = Field(min_length=1)
    tiers: tuple[Tier, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> "Tiers":
        for what, names in (("classes", self.classes), ("tiers", self.tiers)):
            if len({one.name for one in names}) < len(names):
                raise ValueError(f"two {what} have one name")
        count = len(self.tiers) ** len(self.classes)
        if count > MOST_ASSIGNMENTS:
            raise ValueError(f"{count:,} ways to stage the classes are more than {MOST_ASSIGNMENTS:,}")
        return self


def load_tiers(path: Path | str) -> tuple[Tiers, Source]:
    """Read a tiers file.

    Raises
    ------
    ScenarioError
        Mistakes in the file, each with its line.
    """
    source = load(Path(path))
    return validate(Tiers, source.values, source), source
