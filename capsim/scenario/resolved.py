"""A scenario with every name looked up: what the rest of capsim works on."""

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capsim.api_tiers import ApiTier
from capsim.catalog import Catalog, Fact
from capsim.efficiency import Efficiency
from capsim.engine_spec import EngineSpec
from capsim.estimate import Estimate, saturation
from capsim.hardware import Device, Node
from capsim.kv_format import KVFormat
from capsim.llm import ModelSpec, WeightFormat
from capsim.memory import BlockRule, MemoryBudget, block_rule
from capsim.parallelism import Parallelism
from capsim.prices import Price
from capsim.scenario.spec import Scenario
from capsim.steptime import StepTimeModel
from capsim.steptime.calibrated import Calibrated
from capsim.steptime.roofline import Roofline
from capsim.steptime.scaled import Scaled
from capsim.steptime.whole_step import WholeStep, carried_over
from capsim.workload.chats import Longest
from capsim.workload.requests import mean_think_s, sample_lengths, sample_reused
from capsim.workload.spec import Closed, Workload
from capsim.workload.steady import AT_ONCE, Response, requests_per_s
from capsim.workload.traces import Trace

STEP_TIMES_DEPEND_ON = {"model", "weights", "kv_format", "node", "device", "layout", "efficiency", "measured_on"}


@dataclass(frozen=True)
class Resolved:
    """A scenario ready to run.

    ``engine`` carries the scenario's scheduler settings; ``basis`` names, for each part, the catalog key and the fact
    behind it; ``warnings`` are what a reader of the result should know; ``measured_on`` is the device that
    ``efficiency`` is of, ``api_tier`` a hosted model to compare with. Step times are taken ``step_factor`` times as
    long, to see what an error of theirs does. ``path``, ``overrides`` and ``catalog`` are what it was resolved from.
    """

    scenario: Scenario
    workload: Workload
    trace: Trace | None
    model: ModelSpec
    weights: WeightFormat
    kv_format: KVFormat
    node: Node
    device: Device
    engine: EngineSpec
    efficiency: Efficiency
    price: Price | None
    layout: Parallelism
    memory: MemoryBudget
    basis: dict[str, tuple[str, Fact]]
    measured_on: Device
    catalog: Catalog
    warnings: tuple[str, ...] = ()
    api_tier: ApiTier | None = None
    step_factor: float = 1.0
    path: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.scenario.name or f"{self.scenario.model} on {self.scenario.node}"

    @property
    def replays(self) -> bool:
        """Whether a trace comes as it was recorded: nothing of it is drawn."""
        return self.trace is not None and self.workload.arrival is None

    @property
    def replicas(self) -> int:
        return self.layout.replicas * self.scenario.nodes

    @property
    def max_num_seqs(self) -> int:
        """Sequences that a replica runs: the batches of a pipeline share out those that the engine runs."""
        return -(-self.engine.max_num_seqs // self.layout.pp)

    @property
    def capacity_tokens(self) -> int:
        """KV tokens of the whole fleet."""
        return self.memory.capacity_tokens * self.layout.dp * self.scenario.nodes

    @property
    def engine_key(self) -> str:
        return self.scenario.engine or self.node.engine

    @property
    def replica_block_bytes(self) -> float:
        """Bytes of a KV block on all ranks of its replica, each taken as the fullest."""
        return self.memory.block_bytes * self.layout.tp * self.layout.pp

    def changed(self, **changes: Any) -> "Resolved":
        """A copy with other values of some fields. It shares what step times have looked up, unless they depend on one.

        Raises
        ------
        TypeError
            There is no such field.
        """
        copy = replace(self, **changes)
        if STEP_TIMES_DEPEND_ON.isdisjoint(changes):
            copy.__dict__["_step_time_model"] = self._step_time_model
        return copy

    def step_time_model(self) -> StepTimeModel:
        """One for all replications: it remembers what it has looked up."""
        return self._step_time_model if self.step_factor == 1 else Scaled(self._step_time_model, self.step_factor)

    @cached_property
    def _step_time_model(self) -> StepTimeModel:
        """Whole steps where this model's were measured as it is laid out here, else kernels, else the roofline."""
        measured = self.efficiency.measured
        what = (self.model, self.weights, self.kv_format, self.device, self.layout, self.efficiency)
        if measured is None:
            return Roofline(*what)
        if self.layout.devices == 1 and self.efficiency.device == self.node.device:
            these = (self.model.name, self.weights.name, self.kv_format.name)
            for steps in measured.whole_steps:
                if (steps.model, steps.weights, steps.kv_format) == these:
                    coefficients = carried_over(steps.coefficients, self.measured_on, self.device)
                    return WholeStep(self.model, coefficients, steps.domain)
        return Calibrated(*what, self.measured_on) if measured.kernels else Roofline(*what)

    @cached_property
    def block_rule(self) -> BlockRule:
        """KV blocks a sequence holds in its replica."""
        return block_rule(self.memory, self.model, self.kv_format, self.layout)

    @cached_property
    def longest(self) -> Longest:
        """What one replica takes of a request."""
        slots = self.max_num_seqs if self.engine.reserve == "slot" else 1
        context = range(self.model.max_context_tokens + 1)
        fits = bisect_right(context, self.memory.blocks // slots, key=self.block_rule.blocks) - 1
        return Longest(self.engine.longest_prompt_tokens, fits)

    @cached_property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """A sample of prompt and output tokens."""
        return sample_lengths(self.workload, self.trace, self.longest)

    @cached_property
    def mean_think_s(self) -> float:
        return mean_think_s(self.workload, self.longest)

    @cached_property
    def _cached_tokens(self) -> np.ndarray | None:
        """Of the sample's prompts, what a prefix cache that forgets nothing holds; None without one."""
        if not (self.workload.in_sessions and self.engine.prefix_caching):
            return None
        return sample_reused(self.workload, self.longest)

    @cached_property
    def response(self) -> Response:
        """How long requests of open sessions take by the closed form, before queueing."""
        if not self.workload.in_sessions or isinstance(self.workload.arrival, Closed):
            return AT_ONCE
        at = self.saturation(requests_per_s=requests_per_s(self.workload, self.longest) / self.replicas)
        return Response(at.service_s - float(self.lengths[1].mean()) * at.tpot_s, at.tpot_s)

    def saturation(self, tpot_s: float = np.inf, requests_per_s: float = np.inf) -> Estimate:
        """Closed-form throughput of one replica, its batch kept inside ``tpot_s``, and no larger than that many
        requests a second make it."""
        return saturation(
            self.step_time_model(), self.model.streams, self.memory.blocks // self.layout.pp, self.block_rule.blocks,
            self.max_num_seqs, *self.lengths, tpot_s, self._cached_tokens, requests_per_s,
            reserved=self.engine.reserve == "answer",
        )  # fmt: skip
