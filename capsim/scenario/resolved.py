"""A scenario with every name looked up: what the rest of capsim works on."""

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
from capsim.workload.requests import mean_think_s, sample_lengths, sample_reused
from capsim.workload.spec import Workload
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

    @property
    def replica_block_bytes(self) -> float:
        """Bytes of a KV block on all ranks of its replica, each taken as the fullest."""
        return self.memory.block_bytes * self.layout.tp * self.layout.pp

    def step_time_model(self) -> Roofline:
        return Roofline(self.model, self.weights, self.kv_format, self.device, self.layout, self.efficiency)

    @cached_property
    def block_rule(self) -> BlockRule:
        """KV blocks a sequence holds in its replica."""
        return block_rule(self.memory, self.model, self.kv_format, self.layout)

    @cached_property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """A sample of prompt and output tokens."""
        return sample_lengths(self.workload, self.trace)

    @cached_property
    def mean_think_s(self) -> float:
        return mean_think_s(self.workload)

    @cached_property
    def _cached_tokens(self) -> np.ndarray | None:
        """Of the sample's prompts, what a prefix cache that forgets nothing holds; None without one."""
        return sample_reused(self.workload) if self.workload.in_sessions and self.engine.prefix_caching else None

    def saturation(self, tpot_s: float = np.inf) -> Estimate:
        """Closed-form throughput of one replica, its batch kept inside ``tpot_s``."""
        return saturation(
            self.step_time_model(), self.model.streams, self.memory.blocks // self.layout.pp, self.block_rule.blocks,
            self.max_num_seqs, *self.lengths, tpot_s, self._cached_tokens, reserved=self.engine.reserve == "answer",
        )  # fmt: skip
