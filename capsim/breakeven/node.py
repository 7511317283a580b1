"""What one node carries inside the SLO, in requests a second and the tokens of a request."""

from dataclasses import dataclass, replace
from typing import Any

from capsim.capacity import find_capacity
from capsim.capacity.instant import Instant, demand_of, fleet_of, instant
from capsim.capacity.sessions import guess
from capsim.capacity.trials import OnTrial
from capsim.errors import Infeasible
from capsim.experiment import Interrupted
from capsim.model_error import model_error
from capsim.scenario import Resolved
from capsim.workload.requests import sample_reused


@dataclass(frozen=True)
class Carried:
    """A node at the last number of sessions that keeps the SLO.

    ``sessions`` are those, and the first that miss it (None by the closed form, which has no such number). Tokens are
    those of a request on average: ``input_tokens`` in all, ``cached_tokens`` of these that the prefix cache held.
    """

    how: str
    sessions: tuple[int, int | None]
    requests_per_s: float
    input_tokens: float
    cached_tokens: float
    output_tokens: float

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.input_tokens

    def tokens_per_s(self, requests_per_s: float, hit_rate: float | None = None) -> dict[str, float]:
        """Token rates at a rate of requests, with another share of the input cached if asked."""
        cached = self.cached_tokens if hit_rate is None else hit_rate * self.input_tokens
        parts = {"input": self.input_tokens, "cached": cached, "output": self.output_tokens}
        return {f"{kind}_tokens_per_s": tokens * requests_per_s for kind, tokens in parts.items()}


def simulated(resolved: Resolved, on_trial: OnTrial) -> Carried:
    """By simulation of closed-loop users, their number searched.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or no number of users misses it.
    Infeasible
        Not even one session is served inside the SLO.
    KeyboardInterrupt
        Ctrl-C: half of a search is worth nothing here.
    """
    try:
        found = find_capacity(resolved, on_trial)
    except Interrupted as stopped:
        raise KeyboardInterrupt from stopped
    flow = found.at_limit.summary["throughput"]
    per_s = flow["requests_per_s"]
    tokens = [flow[f"{kind}_tokens_per_s"] / per_s for kind in ("input", "cached", "output")]
    return Carried("simulated", (found.low, found.high), per_s, *tokens)


def estimated(resolved: Resolved) -> Carried:
    """By the closed form, and prefixes as by a cache that forgets nothing: at once, and nearer to hope than to truth.

    Raises
    ------
    ScenarioError, Infeasible
        As above.
    """
    first = guess(fleet_of(resolved))
    if not first.sessions:
        raise Infeasible("not even one session is served inside the SLO", remedies=["relax the SLO"])
    prompt, output = resolved.lengths
    caches = resolved.engine.prefix_caching and resolved.workload.in_sessions
    cached = float(sample_reused(resolved.workload, resolved.longest).mean()) if caches else 0.0
    per_s = _per_s(resolved, first)
    return Carried("closed form", (first.sessions, None), per_s, float(prompt.mean()), cached, float(output.mean()))


def _per_s(resolved: Resolved, at: Instant) -> float:
    """Requests a second of its sessions: N / (R + Z)."""
    return at.sessions / (at.latency["e2e_s"]["mean"] + demand_of(resolved).think_s)


def with_model_error(resolved: Resolved, carried: Carried) -> tuple[dict[str, Any], tuple[Carried | None, ...]]:
    """What model error does to what a node carries: told, and the node at [low, high].

    The ratio of the closed form with step times at an end of their error to that as they are. None for a low end that
    serves nobody inside the SLO, and for a high end at which no number of users misses it.
    """
    error, as_is = model_error(resolved), instant(resolved)
    assert as_is is not None
    ends: list[Carried | None] = []
    for factor in reversed(error.step_time):
        moved = instant(resolved.changed(step_factor=factor))
        ratio = 0.0 if moved is None else _per_s(resolved, moved) / _per_s(resolved, as_is)
        ends.append(replace(carried, requests_per_s=ratio * carried.requests_per_s) if ratio > 0 else None)
    told = {
        "basis": error.basis, "source": error.source, "figures": error.figures, "step_time": list(error.step_time),
        "requests_per_s": [end and end.requests_per_s for end in ends],
    }  # fmt: skip
    return told, tuple(ends)
