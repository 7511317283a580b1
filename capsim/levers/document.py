"""The document of a stack: every lever alone, one after the other, all together, and on average over all orders."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from capsim.errors import Infeasible, ScenarioError, did_you_mean
from capsim.experiment import SCHEMA_VERSION, Run
from capsim.levers.shapley import best_part, filled, shapley
from capsim.levers.spec import Lever, Stack
from capsim.levers.step import Step, conflict, gain_brackets, step_of
from capsim.scenario import resolve
from capsim.scenario.lock import locked
from capsim.sweep.spec import assignments

SIMULATE_ALL = 8
"""Up to so many sets of levers that can be are all simulated, and the average over orders rests on simulation."""
OnStep = Callable[[int, int, str], None]
"""Told how many parts of how many are done, and what comes next."""


def stack(
    spec: Stack,
    overrides: Sequence[str] = (),
    *,
    estimate: bool = False,
    order: Sequence[str] | None = None,
    on_step: OnStep = lambda done, total, what: None,
) -> dict[str, Any]:
    """The JSON document: ``{base, alone, cumulative, joint, product, interaction, shapley, ...}``, docs/levers.md.

    All sets of levers are answered by the closed form. What is shown of them is simulated too; where no more than
    ``SIMULATE_ALL`` sets can be, all of them are.

    Parameters
    ----------
    overrides
        ``path=value`` in the baseline; levers come after them.
    estimate
        The closed form alone: seconds.
    order
        Names of all levers as they are pulled one after the other; by default as in the file.

    Raises
    ------
    ScenarioError
        Mistakes in the scenario, or ``order`` does not name every lever once.
    Infeasible
        The baseline itself does not fit, keeps no SLO or has no price.
    KeyboardInterrupt
        Ctrl-C.
    """
    levers = spec.levers if order is None else _in_order(spec.levers, order)
    sets = _Sets(levers, spec, overrides, on_step)
    sets.estimate_all()
    if not estimate:
        while left := sets.unsimulated():  # what turns out not to be moves what others come to
            sets.simulate(left)
    base, joint = sets.steps[0], sets.steps[sets.comes_to(sets.everything)]
    singles = [_row(sets, mask, sets.comes_to(mask)) for mask in sets.alone]
    product = math.prod(row["gain"] for row in singles)
    brackets = gain_brackets(base, joint)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": spec.name, "description": spec.description, "claimed_gain": spec.claimed_gain,
        "scenario": locked(base.resolved),
        "how": base.carried.how, "users": base.users,
        "levers": [lever.model_dump() for lever in levers],
        "base": base.row(base),
        "alone": singles,
        "cumulative": [_row(sets, asked, mask) for asked, mask in sets.chain().items()],
        "joint": {**_row(sets, sets.everything, sets.comes_to(sets.everything)), **brackets},
        "product": product,
        "interaction": brackets["gain"] / product,
        "shapley": _shapley(sets),
        "infeasible": sets.reasons(),
        "warnings": _warnings([sets.steps[mask] for mask in sets.shown()]),
    }  # fmt: skip


def _in_order(levers: tuple[Lever, ...], order: Sequence[str]) -> tuple[Lever, ...]:
    known = {lever.name: lever for lever in levers}
    for name in order:
        if name not in known:
            raise ScenarioError.one(f"unknown lever '{name}'", path="--order", hint=did_you_mean(name, list(known)))
    if sorted(order) != sorted(known):
        raise ScenarioError.one("must name every lever once", path="--order", hint=f"levers: {', '.join(known)}")
    return tuple(known[name] for name in order)


@dataclass
class _Sets:
    """All sets of levers as bit masks: ``steps`` are those that can be, ``why`` says of the others why not."""

    levers: tuple[Lever, ...]
    spec: Stack
    overrides: Sequence[str]
    on_step: OnStep
    steps: dict[int, Step] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    estimated: dict[int, Step] = field(default_factory=dict)

    def estimate_all(self) -> None:
        count = 1 << len(self.levers)
        for mask in range(count):
            self.on_step(mask, count, f"closed form: {self.title(mask)}")
            self._estimate(mask)
        self.estimated = dict(self.steps)

    def _estimate(self, mask: int) -> None:
        """Of the baseline every error is the user's; of more than one lever it means that they do not go together."""
        pulled = self.pulled(mask)
        reason = conflict(pulled)
        try:
            if reason is None:
                settings = [setting for lever in pulled for setting in assignments(lever.set)]
                self.steps[mask] = step_of(pulled, resolve(self.spec.scenario, [*self.overrides, *settings]))
        except (Infeasible, ScenarioError) as error:
            if mask == 0:
                raise
            reason = error.message if isinstance(error, Infeasible) else error.problems[0].message
        if reason is not None:
            self.why[mask] = reason

    @property
    def alone(self) -> list[int]:
        return [1 << index for index in range(len(self.levers))]

    @property
    def everything(self) -> int:
        return (1 << len(self.levers)) - 1

    def shown(self) -> list[int]:
        """The baseline, and what each lever alone, one after the other and all together come to."""
        return sorted({0, *self.chain().values(), *map(self.comes_to, [*self.alone, self.everything])})

    def unsimulated(self) -> list[int]:
        """Of what is to be simulated, what is not yet."""
        wanted = list(self.steps) if len(self.steps) <= SIMULATE_ALL else self.shown()
        return [mask for mask in wanted if self.steps[mask] is self.estimated[mask]]

    def simulate(self, masks: list[int]) -> None:
        """By simulation too; a set that then serves nobody inside the SLO cannot be."""
        for done, mask in enumerate(masks):
            what = f"simulating: {self.title(mask)}"
            self.on_step(done, len(masks), what)

            def tell(sessions: int, run: Run, done: int = done, what: str = what) -> None:
                self.on_step(done, len(masks), f"{what}: {sessions:,} sessions")

            try:
                self.steps[mask] = self.steps[mask].simulated(tell)
            except Infeasible as error:
                if mask == 0:
                    raise
                del self.steps[mask]
                self.why[mask] = error.message
        self.on_step(len(masks), len(masks), "done")

    def pulled(self, mask: int) -> tuple[Lever, ...]:
        return tuple(lever for index, lever in enumerate(self.levers) if mask >> index & 1)

    def title(self, mask: int) -> str:
        return " + ".join(lever.name for lever in self.pulled(mask)) or "baseline"

    @property
    def alike(self) -> dict[int, Step]:
        """The steps, all by simulation or, if not all are simulated, all by the closed form."""
        if len({step.carried.how for step in self.steps.values()}) == 1:
            return self.steps
        return {mask: self.estimated[mask] for mask in self.steps}

    @property
    def log_gains(self) -> list[float | None]:
        """Of each mask, None where it cannot be."""
        steps = self.alike
        usd = [steps[mask].usd_per_million_tokens if mask in steps else None for mask in range(1 << len(self.levers))]
        return [None if each is None else math.log(steps[0].usd_per_million_tokens / each) for each in usd]

    def comes_to(self, mask: int) -> int:
        """The set itself, or the best that can be of its parts."""
        return best_part(self.log_gains, mask)

    def chain(self) -> dict[int, int]:
        """One lever after the other: the set that each would make, and what it comes to. One that does not go with
        those before it is left off."""
        chain, at = {}, 0
        for index in range(len(self.levers)):
            asked = at | 1 << index
            at = asked if asked in self.steps else at
            chain[asked] = at
        return chain

    def reasons(self) -> list[dict[str, Any]]:
        """Why sets cannot be: each reason once, with the smallest set that has it and how many do."""
        masks = sorted(self.why, key=lambda mask: (mask.bit_count(), mask))
        found: dict[str, list[int]] = {}
        for mask in masks:
            found.setdefault(self.why[mask], []).append(mask)
        return [
            {"levers": [lever.name for lever in self.pulled(same[0])], "reason": reason, "sets": len(same)}
            for reason, same in found.items()
        ]


def _row(sets: _Sets, asked: int, mask: int) -> dict[str, Any]:
    """A set that was asked for and the one that it comes to, with the reason where they differ."""
    return {
        "pulled": [lever.name for lever in sets.pulled(asked)],
        "infeasible": sets.why.get(asked),
        **sets.steps[mask].row(sets.steps[0]),
    }


def _shapley(sets: _Sets) -> dict[str, Any]:
    values = filled(sets.log_gains)
    return {
        "how": sets.alike[0].carried.how,
        "joint_gain": math.exp(values[-1]),
        "levers": [
            {"name": lever.name, "log_gain": share, "gain": math.exp(share),
             "share": share / values[-1] if values[-1] else None}
            for lever, share in zip(sets.levers, shapley(values), strict=True)
        ],
    }  # fmt: skip


def _warnings(steps: Sequence[Step]) -> list[str]:
    notes = ["monthly cost is of the nodes that carry the users, without a spare"]
    return list(dict.fromkeys([*notes, *(note for step in steps for note in step.resolved.warnings)]))
