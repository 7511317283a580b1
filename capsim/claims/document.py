"""The document of claims: numbers first, and verdicts that follow from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import capsim
from capsim.claims.formula import evaluate
from capsim.claims.quantities import Input, value_of
from capsim.claims.spec import Claim, load_claim
from capsim.errors import Infeasible, ScenarioError, did_you_mean
from capsim.experiment import SCHEMA_VERSION
from capsim.source import Source

HOME = Path(capsim.__file__).parents[1] / "scenarios" / "claims"
HOLDS, CONDITIONS, INCONSISTENT, UNTESTABLE = (
    "holds", "holds under conditions", "inconsistent", "cannot be tested",
)  # fmt: skip
RULE = (
    f"'{HOLDS}' where the value is within holds_within of what is claimed; else '{CONDITIONS}' where what is claimed "
    f"is as near to the span from bear to bull; else '{INCONSISTENT}'; '{UNTESTABLE}' where nothing can be computed"
)


def find_files(asked: Sequence[str] = ()) -> list[Path]:
    """Claim files by name or path, or all that ship.

    Raises
    ------
    ScenarioError
        There is no such claim.
    """
    known = {path.stem: path for path in sorted(HOME.glob("*.yaml"))}
    files = []
    for name in asked:
        path = known.get(name) or Path(name)
        if not path.is_file():
            raise ScenarioError.one(f"unknown claim '{name}'", hint=did_you_mean(name, list(known)))
        files.append(path)
    return files if asked else list(known.values())


def claims(files: Sequence[Path], on_claim: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """The JSON document: ``{rule, claims: [{name, claim, claimed, value, bear, bull, inputs, verdict, ...}]}``.

    Raises
    ------
    ScenarioError
        Mistakes in a file, or in what it asks for.
    Infeasible
        A model in a file's inputs does not fit its node.
    """
    rows = []
    for path in files:
        on_claim(path.stem)
        rows.append(judged(path.stem, *load_claim(path)))
    return {"schema_version": SCHEMA_VERSION, "rule": RULE, "claims": rows}


def judged(name: str, claim: Claim, source: Source) -> dict[str, Any]:
    """One claim with its numbers and its verdict."""
    told = {
        "name": name, "claim": claim.claim, "source": claim.source, "claimed": claim.claimed and list(claim.claimed),
        "unit": claim.unit, "formula": claim.formula, "holds_within": claim.holds_within,
        "why": claim.untestable or claim.why,
    }  # fmt: skip
    if claim.formula is None or claim.claimed is None:
        return {
            **told,
            "inputs": {},
            "bear_inputs": {},
            "bull_inputs": {},
            "value": None,
            "bear": None,
            "bull": None,
            "verdict": UNTESTABLE,
        }
    inputs = {key: _value(each, source, ("inputs", key)) for key, each in claim.inputs.items()}
    bear_inputs, bull_inputs = (
        {key: _value(each, source, (case, key)) for key, each in moved.items()}
        for case, moved in (("bear", claim.bear), ("bull", claim.bull))
    )
    try:
        value, bear, bull = (evaluate(claim.formula, inputs | moved) for moved in ({}, bear_inputs, bull_inputs))
    except ValueError as error:
        raise ScenarioError([source.problem(("formula",), str(error))]) from error
    return {
        **told, "inputs": inputs, "bear_inputs": bear_inputs, "bull_inputs": bull_inputs,
        "value": value, "bear": _bounded(bear), "bull": _bounded(bull),
        "verdict": verdict(claim.claimed, value, bear, bull, claim.holds_within),
    }  # fmt: skip


def _bounded(value: float) -> float | None:
    """None where a case has no bound."""
    return value if math.isfinite(value) else None


def verdict(claimed: tuple[float, float], value: float, bear: float, bull: float, holds_within: float) -> str:
    """By ``RULE``."""

    lowest, highest = claimed[0] - holds_within * abs(claimed[0]), claimed[1] + holds_within * abs(claimed[1])

    def near(low: float, high: float) -> bool:
        return low <= highest and lowest <= high

    if near(value, value):
        return HOLDS
    return CONDITIONS if near(min(value, bear, bull), max(value, bear, bull)) else INCONSISTENT


def _value(quantity: Input, source: Source, place: tuple[str, ...]) -> float:
    """A quantity's number; what is wrong with it is told with its place in the file."""
    try:
        return value_of(quantity, lambda path: source.file(path, ".".join(place)).resolve())
    except ScenarioError as error:
        raise ScenarioError([source.problem(place, p.message, p.hint) for p in error.problems]) from error
    except Infeasible as error:
        raise Infeasible(f"{source.path} {'.'.join(place)}: {error.message}") from error


def counted(document: Mapping[str, Any]) -> dict[str, int]:
    """How many claims have each verdict."""
    verdicts = [row["verdict"] for row in document["claims"]]
    return {name: verdicts.count(name) for name in (HOLDS, CONDITIONS, INCONSISTENT, UNTESTABLE)}
