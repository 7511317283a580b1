"""The claim file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from capsim.claims.formula import names
from capsim.claims.quantities import Input
from capsim.source import Source, load, validate


class Claim(BaseModel):
    """What somebody claims, and how it is checked.

    Attributes
    ----------
    claimed
        The number, or [low, high]; None where the claim has none.
    formula
        Over the names of ``inputs``; its value, in ``unit``, is set beside ``claimed``.
    bull, bear
        Inputs that are replaced in the case that favours the claim most, and least.
    holds_within
        Relative distance at which the value still bears the claim out.
    untestable
        Why nothing can be computed; instead of a formula.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    claim: str
    source: str
    claimed: tuple[float, float] | None = None
    unit: str = ""
    formula: str | None = None
    inputs: dict[str, Input] = {}
    bull: dict[str, Input] = {}
    bear: dict[str, Input] = {}
    holds_within: float = Field(0.1, ge=0)
    why: str = ""
    untestable: str | None = None

    @field_validator("claimed", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> object:
        return (value, value) if isinstance(value, (int, float)) else value

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if (self.formula is None) == (self.untestable is None):
            raise ValueError("give a formula, or say why the claim is untestable")
        if self.formula is None:
            return self
        if self.claimed is None:
            raise ValueError("a formula needs a claimed number to be set beside")
        if self.claimed[0] > self.claimed[1]:
            raise ValueError("claimed must be [low, high]")
        for name in sorted(names(self.formula)):
            if name not in self.inputs:
                raise ValueError(f"the formula has '{name}', which is no input")
        for name in (*self.bull, *self.bear):
            if name not in self.inputs:
                raise ValueError(f"'{name}' is no input: bull and bear replace inputs")
        return self


def load_claim(path: Path) -> tuple[Claim, Source]:
    """Read a claim file.

    Raises
    ------
    ScenarioError
        Mistakes in it, each with its line.
    """
    source = load(path)
    return validate(Claim, source.values, source), source
