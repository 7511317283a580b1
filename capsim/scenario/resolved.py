"""A scenario with every name looked up: what the rest of capsim works on."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from capsim.catalog import Fact
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
from capsim.steptime.roofline import Roofline
from capsim.workload.chats import Longest
from capsim.workload.requests import mean_think_s, sample_lengths, sample_reused
from capsim.workload.spec import Closed, Workload
from capsim.workload.steady import AT_ONCE, Response, requests_per_s
from capsim.workload.traces import Trace


@dataclass(frozen=True)
class Resolved:
    """A scenario ready to run.

    ``engine`` carries the scenario's scheduler settings; ``basis`` names, for each part, the catalog key and the fact
    behind it; ``warnings`` are what a reader of the result should know.
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
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.scenario.name or f"{self.scenario.model} on {self.scenario.node}"

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

    def step_time_model(self) -> Roofline:
        return Roofline(self.model, self.weights, self.kv_format, self.device, self.layout, self.efficiency)

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
