"""The scenario file: model, fleet, workload, target and price, in the rooms' own schemas."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    WrapSerializer,
    model_validator,
)

from capsim.hardware import Bytes, BytesPerSecond
from capsim.prices import OwnPrice, Quote
from capsim.slo import SLO
from capsim.workload.spec import Workload, check_turned_away


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ParallelismSpec(_Spec):
    """tensor x pipeline x data x expert parallelism inside a node; together they use all of its devices."""

    tp: PositiveInt = 1
    pp: PositiveInt = 1
    dp: PositiveInt = 1
    expert: bool = False


class SchedulerSpec(_Spec):
    """Settings of the engine's scheduler; what is left out is the engine's default."""

    max_num_seqs: PositiveInt | None = None
    max_num_batched_tokens: PositiveInt | None = None
    enable_prefix_caching: bool | None = None
    queue_limit: NonNegativeInt | None = None


class MemorySpec(_Spec):
    """Shares of device memory; what is left out is the engine's default."""

    fraction: float | None = Field(None, gt=0, le=1)
    activation_bytes: Bytes | None = None


class TierSpec(_Spec):
    """Room for KV of all devices of a node, and how fast KV moves between there and them."""

    capacity: Bytes
    bandwidth: BytesPerSecond


class OffloadSpec(_Spec):
    """Where KV goes that leaves the pools of a node: to host memory, from there to an SSD."""

    host: TierSpec | None = None
    ssd: TierSpec | None = None

    @property
    def tiers(self) -> dict[str, TierSpec]:
        """The fastest first."""
        return {name: tier for name, tier in (("host", self.host), ("ssd", self.ssd)) if tier is not None}

    @model_validator(mode="after")
    def _some_tier(self) -> "OffloadSpec":
        if not self.tiers:
            raise ValueError("give host, ssd or both, each as {capacity: 500 GB, bandwidth: 50 GB/s}")
        return self


class PriceSpec(_Spec):
    """What one node costs: a price of the catalog, an all-in hourly rate, a quote, or the parts of owning it."""

    catalog: str | None = None
    usd_per_hour: float | None = Field(None, gt=0)
    quote: Quote | None = None
    own: OwnPrice | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "PriceSpec":
        if sum(way is not None for way in (self.catalog, self.usd_per_hour, self.quote, self.own)) != 1:
            raise ValueError(
                "give one of: a price of the catalog, an all-in usd_per_hour, a quote, an own block (bottom-up)"
            )
        return self


ALL = "all"
BATCH_CAPS = tuple(1 << power for power in range(3, 11))
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]
Caps = Annotated[tuple[PositiveInt, ...], BeforeValidator(lambda v: BATCH_CAPS if v == ALL else v)]
Layouts = Annotated[
    tuple[ParallelismSpec, ...] | None,
    BeforeValidator(lambda v: () if v == ALL else v),
    WrapSerializer(lambda v, handler: ALL if v == () else handler(v)),
]
"""None where the scenario's own stands, empty for all."""


class PlanSpec(_Spec):
    """What ``plan`` is asked: how many nodes carry ``users`` attached sessions, and which fleets may be chosen from.

    The users are spread over ``sites``, each with a fleet of its own, and grow by ``growth_per_month``. A list that is
    left out leaves what the scenario itself says; ``all`` stands for every one that there is.
    """

    users: PositiveInt | None = None
    sites: PositiveInt = 1
    growth_per_month: float = Field(0, ge=0, le=1)
    nodes: Names = ()
    kv_formats: Names = ()
    parallelism: Layouts = None
    max_num_seqs: Caps = ()

    @model_validator(mode="after")
    def _of_users(self) -> "PlanSpec":
        if self.users is None and (self.sites > 1 or self.growth_per_month):
            raise ValueError("sites and growth_per_month are of users: give users as well")
        return self


Factor = Annotated[float, Field(gt=0)]


class PricePath(_Spec):
    """How flexible prices move from today's: to a ``factor`` of them within ``over_months``, evenly in logs, and no
    further; of a range each sample draws one, evenly in logs. Or by ``monthly`` factors, the last of which stays.

    ``volatility`` is the yearly standard deviation of the logarithm around that, by independent months.
    """

    factor: Factor | tuple[Factor, Factor] | None = None
    over_months: Factor = 12
    monthly: tuple[Factor, ...] | None = Field(None, min_length=1)
    volatility: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> "PricePath":
        if (self.factor is None) == (self.monthly is None):
            raise ValueError("give one of: a factor (or a range of them), monthly factors")
        if isinstance(self.factor, tuple) and self.factor[0] > self.factor[1]:
            raise ValueError("a range of factors begins with the lower one")
        return self


class ContractSpec(_Spec):
    """What ``contract`` is asked: quotes by name, against a ``flexible`` price of the catalog (of nodes or of an API).

    The load grows by ``growth_per_year``, give or take ``growth_volatility`` (yearly, of its logarithm); money of next
    year is worth 1 / (1 + ``discount_rate``) of today's.
    """

    flexible: str | None = None
    offers: dict[str, Quote] = {}
    paths: dict[str, PricePath] = {}
    horizon_months: Annotated[int, Field(ge=1, le=120)] = 36
    growth_per_year: float = Field(0, gt=-1)
    growth_volatility: float = Field(0, ge=0)
    discount_rate: float = Field(0.08, ge=0)
    samples: Annotated[int, Field(ge=2, le=100_000)] = 2000


class Scenario(_Spec):
    """Everything a run needs. Names of models, formats, nodes, engines and prices are keys of the catalog, with what
    the files under ``catalog`` add to it; a model may also be the path of its config.json. ``as_of`` is the day that
    prices must not be stale on, by default the day of the run."""

    name: str | None = None
    description: str = ""
    as_of: date | None = None
    catalog: Annotated[
        tuple[Path, ...],
        BeforeValidator(lambda v: [v] if isinstance(v, str) else v, json_schema_input_type=str | tuple[Path, ...]),
    ] = ()
    model: str
    weights: str | None = None
    kv_format: str = "bf16"
    node: str
    nodes: PositiveInt = 1
    engine: str | None = None
    parallelism: Annotated[
        ParallelismSpec | None,
        BeforeValidator(
            lambda v: None if v == "auto" else v, json_schema_input_type=ParallelismSpec | Literal["auto"] | None
        ),
    ] = None
    router: Literal["round-robin", "least-loaded", "session-affine", "prefix-aware"] = "least-loaded"
    scheduler: SchedulerSpec = SchedulerSpec()
    memory: MemorySpec = MemorySpec()
    kv_capacity_tokens: PositiveInt | None = None
    kv_offload: OffloadSpec | None = None
    calibration: Literal["auto", "none"] | Path = "auto"
    api_tier: str | None = None
    price: Annotated[
        PriceSpec | None,
        BeforeValidator(
            lambda v: {"catalog": v} if isinstance(v, str) else v, json_schema_input_type=PriceSpec | str | None
        ),
    ] = None
    workload: Workload
    slo: SLO | None = None
    plan: PlanSpec = PlanSpec()
    contract: ContractSpec = ContractSpec()
    seed: NonNegativeInt = 1
    replications: PositiveInt = 5
    precision: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _no_endless_retry(self) -> "Scenario":
        check_turned_away(self.workload, self.scheduler.queue_limit)
        return self
