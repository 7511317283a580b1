"""How a model is laid over the devices of a node: tensor x data x expert parallelism."""

from dataclasses import dataclass

from capsim.llm import ModelSpec


@dataclass(frozen=True)
class Parallelism:
    """``tp`` ranks share every layer, ``dp`` replicas of attention each serve their own requests.

    ``expert`` spreads whole experts over all tp x dp ranks instead of cutting each one in ``tp`` slices.
    """

    tp: int
    dp: int = 1
    expert: bool = False

    @property
    def devices(self) -> int:
        return self.tp * self.dp

    @property
    def expert_ranks(self) -> int:
        """Ranks over which the experts are spread whole."""
        return self.devices if self.expert else 1

    def __str__(self) -> str:
        return f"tp{self.tp}" + (f" dp{self.dp}" if self.dp > 1 else "") + (f" ep{self.devices}" if self.expert else "")


def divides(model: ModelSpec, tp: int) -> bool:
    """Whether the query heads of every layer split evenly over ``tp`` ranks."""
    return all(group.heads % tp == 0 for group in model.attention)
