"""What a claim's formula is made of: figures of the catalog, and what a fleet carries and costs by the closed form."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from capsim import cost
from capsim.catalog import Catalog, load_catalog
from capsim.errors import Infeasible, ScenarioError
from capsim.kv_format import kv_bytes
from capsim.levers import load_stack, stack
from capsim.levers.step import Step, step_of
from capsim.memory import usable_bytes, weights_per_rank_bytes
from capsim.model_error import model_error
from capsim.parallelism import Parallelism
from capsim.prices import HOURS_PER_MONTH
from capsim.scenario import Resolved, resolve
from capsim.steptime import Batch, PrefillChunk
from capsim.sweep.spec import assignments


class _Quantity(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KVBytes(_Quantity):
    """KV bytes that one sequence holds."""

    kind: Literal["kv_bytes"]
    model: str
    kv_format: str = "bf16"
    context_tokens: PositiveFloat

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        model = catalog.get("models", self.model)
        return kv_bytes(model, catalog.get("kv_formats", self.kv_format), self.context_tokens)


class WeightsBytes(_Quantity):
    """Bytes of a model's weights."""

    kind: Literal["weights_bytes"]
    model: str
    weights: str

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        model, weights = catalog.get("models", self.model), catalog.get("weight_formats", self.weights)
        return weights_per_rank_bytes(model, weights, Parallelism(1))


class Parameters(_Quantity):
    """Parameters of a model: all, those that a token uses, or those whose experts a batch touches."""

    kind: Literal["parameters"]
    model: str
    which: Literal["total", "active", "touched"]
    batch: PositiveInt = 1

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        model = catalog.get("models", self.model)
        if self.which == "touched" and model.experts is not None:
            resting = model.experts.count - model.experts.touched(self.batch)
            return float(model.total_parameters - resting * model.experts.layers * model.expert_parameters)
        return float(model.active_parameters if self.which == "active" else model.total_parameters)


class UsableBytes(_Quantity):
    """Memory of a whole node that its engine may fill."""

    kind: Literal["usable_bytes"]
    node: str

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        node = catalog.get("nodes", self.node)
        engine = catalog.get("engines", node.engine)
        return node.devices * usable_bytes(catalog.get("devices", node.device), engine, engine.memory_fraction)


class DeviceFigure(_Quantity):
    """A datasheet figure of a device, by its key in the catalog."""

    kind: Literal["device"]
    device: str
    figure: Literal["memory_bytes", "memory_bytes_per_s", "bf16_flops", "fp8_flops", "fp4_flops"]

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        figure = getattr(catalog.get("devices", self.device), self.figure)
        if figure is None:
            raise ScenarioError.one(f"the catalog has no {self.figure} of {self.device}")
        return float(figure)


class ApiPrice(_Quantity):
    """A price of a hosted model, USD per million tokens."""

    kind: Literal["api_price"]
    tier: str
    part: Literal["input", "cached_input", "output"]

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        price = getattr(catalog.get("api_tiers", self.tier), f"{self.part}_usd_per_million")
        if price is None:
            raise ScenarioError.one(f"price unknown: {self.part} of {self.tier}")
        return float(price)


class NodePrice(_Quantity):
    """What a node costs an hour, USD, by a price of the catalog: own ones are spread over their life."""

    kind: Literal["node_price"]
    price: str

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        return float(cost.monthly_cost(catalog.get("prices", self.price), 1)["monthly_usd"] / HOURS_PER_MONTH)


class _OfScenario(_Quantity):
    """Something that a scenario's node does; ``set`` overrides values of its file."""

    scenario: Path
    set: dict[str, Any] = {}


class Rate(_OfScenario):
    """Tokens a second of one sequence alone on the node: of its prefill, or decoding behind ``context_tokens``.

    ``model_error`` takes step times at the fast or the slow end of what they may be off.
    """

    kind: Literal["rate"]
    of: Literal["prefill", "decode"]
    context_tokens: PositiveInt
    model_error: Literal["fast", "slow"] | None = None

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        resolved = _resolved(file(self.scenario), tuple(assignments(self.set)))
        step_time, streams = resolved.step_time_model(), resolved.model.streams
        factor = 1.0 if self.model_error is None else model_error(resolved).step_time[self.model_error == "slow"]
        if self.of == "decode":
            reads = tuple(stream.read(float(self.context_tokens)) for stream in streams)
            return 1 / (factor * step_time.step_time(Batch(1, reads)).total_s)
        most, done_s = resolved.engine.max_num_batched_tokens, 0.0
        none = tuple(0.0 for _ in streams)
        for start in range(0, self.context_tokens, most):
            chunk = PrefillChunk(min(most, self.context_tokens - start), start)
            done_s += step_time.step_time(Batch(0, none, (chunk,), 1)).total_s
        return self.context_tokens / (factor * done_s)


class StepShare(_OfScenario):
    """Share of a decode step that one component takes, with ``batch`` sequences a replica behind ``context_tokens``."""

    kind: Literal["step_share"]
    of: Literal["attention", "experts", "dense", "collectives", "overhead"]
    batch: PositiveInt
    context_tokens: PositiveInt

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        resolved = _resolved(file(self.scenario), tuple(assignments(self.set)))
        reads = tuple(self.batch * stream.read(float(self.context_tokens)) for stream in resolved.model.streams)
        step = resolved.step_time_model().step_time(Batch(self.batch, reads))
        return float(getattr(step, f"{self.of}_s") / step.total_s)


class Carries(_OfScenario):
    """What a node carries inside the SLO: sessions, KV tokens, requests a second, or what a million tokens cost then.

    Sessions and requests are 0 where not even one is served.
    """

    kind: Literal["carries"]
    what: Literal["sessions", "capacity_tokens", "requests_per_s", "usd_per_million_tokens"]

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        path, settings = file(self.scenario), tuple(assignments(self.set))
        if self.what == "capacity_tokens":
            return float(_resolved(path, settings).capacity_tokens)
        if self.what == "usd_per_million_tokens":
            return _step(path, settings).usd_per_million_tokens
        try:
            carried = _step(path, settings).carried
        except Infeasible:
            return 0.0
        return float(carried.sessions[0] if self.what == "sessions" else carried.requests_per_s)


@lru_cache(maxsize=32)
def _resolved(path: Path, settings: tuple[str, ...]) -> Resolved:
    return resolve(path, list(settings))


@lru_cache(maxsize=32)
def _step(path: Path, settings: tuple[str, ...]) -> Step:
    return step_of((), _resolved(path, settings))


class JointGain(_Quantity):
    """The gain of all levers of a stack file together, by the closed form, as it is or at an end of its model error;
    or the product of the single gains."""

    kind: Literal["stack"]
    stack: Path
    what: Literal["joint", "joint_low", "joint_high", "product"] = "joint"

    def value(self, catalog: Catalog, file: Callable[[Path], Path]) -> float:
        document = _stack(file(self.stack))
        low, high = document["joint"]["gain_with_model_error"]
        found = {"joint": document["joint"]["gain"], "joint_low": low or 0.0, "joint_high": high or math.inf}
        return float({**found, "product": document["product"]}[self.what])


@lru_cache(maxsize=4)
def _stack(path: Path) -> dict[str, Any]:
    return stack(load_stack(path), estimate=True)


Quantity = Annotated[
    KVBytes
    | WeightsBytes
    | Parameters
    | UsableBytes
    | DeviceFigure
    | ApiPrice
    | NodePrice
    | Rate
    | StepShare
    | Carries
    | JointGain,
    Field(discriminator="kind"),
]
Input = NonNegativeFloat | Quantity


def value_of(quantity: Input, file: Callable[[Path], Path]) -> float:
    """The number that a quantity stands for; ``file`` places the paths in it.

    Raises
    ------
    ScenarioError, Infeasible
        Unknown names, a scenario with mistakes, or a model that does not fit.
    """
    return quantity if isinstance(quantity, float) else quantity.value(load_catalog(), file)
