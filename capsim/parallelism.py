"""How a model is laid over the devices of a node: tensor x pipeline x data x expert parallelism."""

from dataclasses import dataclass

from capsim.llm import ModelSpec


@dataclass(frozen=True)
class Parallelism:
    """``tp`` ranks share every layer, ``pp`` stages share them out, ``dp`` replicas each serve requests of their own.

    ``expert`` spreads whole experts over all tp x dp ranks of a stage instead of cutting each one in ``tp`` slices.
    """

    tp: int
    dp: int = 1
    expert: bool = False
    pp: int = 1

    @property
    def devices(self) -> int:
        return self.tp * self.dp * self.pp

    @property
    def replicas(self) -> int:
        """Schedulers: a pipeline has a batch in flight for each of its stages, each with a scheduler of its own."""
        return self.dp * self.pp

    @property
    def expert_ranks(self) -> int:
        """Ranks over which the experts of a layer are spread whole."""
        return self.tp * self.dp if self.expert else 1

    @property
    def in_lockstep(self) -> bool:
        """Whether replicas share experts, and so wait for the slowest of them at every step."""
        return self.expert and self.dp > 1

    def __str__(self) -> str:
        parts = {"tp": self.tp, "pp": self.pp, "dp": self.dp, "ep": self.expert_ranks}
        return " ".join(f"{name}{size}" for name, size in parts.items() if size > 1 or name == "tp")


def layouts(model: ModelSpec, devices: int) -> list[Parallelism]:
    """Every layout without a pipeline over so many devices."""
    widths = [tp for tp in range(1, devices + 1) if devices % tp == 0 and divides(model, tp)]
    spreads = (False, True) if model.experts and devices > 1 else (False,)
    return [Parallelism(tp, devices // tp, expert) for tp in widths for expert in spreads]


def divides(model: ModelSpec, tp: int) -> bool:
    """Whether the query heads of every layer split evenly over ``tp`` ranks."""
    return all(group.heads % tp == 0 for group in model.attention)
