"""How many sessions a fleet carries inside its SLO, how many nodes that takes, and what binds.

Sessions are users in a closed loop. The number is doubled until the SLO is missed and then bisected, every point
simulated with the same random numbers; the answer is [last passing, first failing].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from capsim import cost, sizing
from capsim.errors import Infeasible, ScenarioError
from capsim.estimate import Estimate
from capsim.experiment import SCHEMA_VERSION, Interrupted, Run, run_whole
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.scenario.lock import locked
from capsim.workload.requests import with_users
from capsim.workload.spec import check_turned_away

RESOLUTION = 1.02
RELAXED = 1.1
MIN_REQUESTS = 2000
TURNOVERS = 10
WARMUP_SHARE = 0.2
NOTHING = "none of these alone"


@dataclass
class Search:
    """Simulated points of one fleet, by number of sessions, and how to add one."""

    resolved: Resolved
    on_point: Callable[[int, Run], None]
    points: dict[int, Run] = field(default_factory=dict)

    def passes(self, sessions: int) -> bool:
        """Whether the fleet keeps its SLO with that many sessions; simulated once."""
        if sessions not in self.points:
            point = run_whole(with_sessions(self.resolved, sessions))
            self.points[sessions] = point
            self.on_point(sessions, point)
        return bool(self.points[sessions].summary["slo"]["passed"])

    def bracket(self) -> tuple[int, int | None]:
        """[last passing, first failing] of the points so far: 0 where none passes, None where none fails."""
        failing = [n for n in self.points if not self.passes(n)]
        first_failing = min(failing, default=None)
        passing = [n for n in self.points if self.passes(n) and (first_failing is None or n < first_failing)]
        return max(passing, default=0), first_failing


def with_sessions(resolved: Resolved, sessions: int) -> Resolved:
    """The same fleet under a closed loop of ``sessions``, long enough for its batch to turn over many times.

    Raises
    ------
    ScenarioError
        The sessions would ask without end where they are turned away.
    """
    inside = min(sessions, _inside_slo(resolved).batch * resolved.replicas)
    requests = max(MIN_REQUESTS, TURNOVERS * inside)
    workload = with_users(resolved.workload, sessions, requests, int(WARMUP_SHARE * requests))
    try:
        check_turned_away(workload, resolved.scenario.scheduler.queue_limit)
    except ValueError as error:
        hint = "a plan has closed-loop users: give think_s, or leave queue_limit out"
        raise ScenarioError.one(str(error), key="workload", hint=hint) from error
    return replace(resolved, workload=workload)


def first_guess(resolved: Resolved) -> int:
    """Sessions by the closed form, N = X (R + Z), with the batch that keeps TPOT inside the SLO."""
    best = _inside_slo(resolved)
    return max(1, round(best.requests_per_s * resolved.replicas * (best.service_s + resolved.mean_think_s)))


def _inside_slo(resolved: Resolved) -> Estimate:
    assert resolved.scenario.slo is not None
    return resolved.saturation(resolved.scenario.slo.tpot_s or math.inf)


def find_capacity(search: Search) -> tuple[int, int]:
    """Double (or halve) from the closed form's guess until the SLO is bracketed, then bisect.

    Raises
    ------
    Infeasible
        Not even one session is served inside the SLO.
    Interrupted
        Ctrl-C; ``search.points`` keeps what was simulated.
    """
    sessions = first_guess(search.resolved)
    while search.passes(sessions):
        sessions *= 2
    low, high = search.bracket()
    while low == 0:
        if high == 1:
            raise Infeasible(_missed(search.points[1]), remedies=_remedies(search.resolved))
        assert high is not None
        search.passes(max(1, high // 2))
        low, high = search.bracket()
    assert high is not None
    while high - low > 1 and high > RESOLUTION * low:
        search.passes((low + high) // 2)
        low, high = search.bracket()
        assert high is not None
    return low, high


def relax(resolved: Resolved, resource: str) -> Resolved:
    """The same fleet with a tenth more of one resource."""
    device, memory, engine = resolved.device, resolved.memory, resolved.engine
    if resource == "KV capacity":
        return replace(resolved, memory=replace(memory, blocks=math.ceil(memory.blocks * RELAXED)))
    if resource == "batch cap":
        seqs = math.ceil(engine.max_num_seqs * RELAXED)
        tokens = max(engine.max_num_batched_tokens, seqs)
        more = {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
        return replace(resolved, engine=engine.model_copy(update=more))
    fields = {
        "memory bandwidth": ("memory_bytes_per_s",), "compute": ("bf16_flops", "fp8_flops", "fp4_flops"),
        "link": ("link_bytes_per_s",),
    }[resource]  # fmt: skip
    faster = {name: rate * RELAXED for name in fields if (rate := getattr(device, name)) is not None}
    return replace(resolved, device=device.model_copy(update=faster))


def _relaxable(resolved: Resolved, at_limit: Run) -> list[str]:
    """Resources whose relaxing can change anything: a pool or a batch that never fills cannot."""
    names = ("fullest_blocks", "most_running", "most_waiting")
    peak, running, waiting = (max(r.node_use[name] for r in at_limit.replications) for name in names)
    link = resolved.layout.devices > 1 and resolved.device.link_bytes_per_s is not None
    possible = {
        "KV capacity": waiting > 0 and peak > resolved.memory.blocks * 0.9,
        "memory bandwidth": True,
        "compute": True,
        "link": link,
        "batch cap": waiting > 0 and running >= resolved.max_num_seqs,
    }
    return [name for name, can in possible.items() if can]


def what_binds(search: Search, low: int, high: int) -> tuple[str, dict[str, int]]:
    """The resource whose relaxing by a tenth lifts capacity most, and the sessions each carries when relaxed.

    Every relaxed fleet climbs the same ladder of session numbers from the first failing one; those that miss the SLO
    drop out, and the last one standing binds. Fleets that drop out on the same rung are told apart by goodput there.
    """
    carried = dict.fromkeys(_relaxable(search.resolved, search.points[high]), low)
    searches = {name: Search(relax(search.resolved, name), search.on_point) for name in carried}
    standing, rung, goodput = list(searches), high, dict.fromkeys(searches, 0.0)
    while len(standing) > 1 or rung == high:
        survivors = [name for name in standing if searches[name].passes(rung)]
        goodput |= {name: searches[name].points[rung].summary["goodput"] for name in standing}
        carried |= dict.fromkeys(survivors, rung)
        if not survivors:
            break
        standing, rung = survivors, max(rung + 1, round(rung * RESOLUTION))
    best = max(standing, key=lambda name: (carried[name], goodput[name]), default=None)
    if best is None or carried[best] == low:
        return NOTHING, carried
    return best, carried


def plan(resolved: Resolved, on_point: Callable[[int, Run], None]) -> tuple[dict[str, Any], Run | None]:
    """The JSON document of a plan for one node type, and the run at the last passing number of sessions.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or is pinned to something a search over sessions cannot keep.
    Infeasible
        Not even one session is served inside the SLO.
    """
    if resolved.scenario.slo is None:
        hint = "add slo: {ttft_s: 1 s, tpot_s: 50 ms}"
        raise ScenarioError.one("a plan needs a latency target", key="slo", hint=hint)
    one_node = replace(resolved, scenario=resolved.scenario.model_copy(update={"nodes": 1}))
    search = Search(one_node, on_point)
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": locked(resolved),
        "users": resolved.scenario.plan.users,
        "interrupted": False,
    }
    try:
        low, high = find_capacity(search)
        binds, carried = what_binds(search, low, high)
        sized = _sized(resolved, on_point)
    except Interrupted:
        passing, failing = search.bracket()
        document |= {"interrupted": True, "candidates": [], "bracket": [passing, failing]}
        return document, search.points.get(passing)
    return document | {"candidates": [_candidate(search, low, high, binds, carried, sized)]}, search.points[low]


def _sized(resolved: Resolved, on_fleet: Callable[[int, Run], None]) -> dict[str, Any]:
    """Fleets for the arrivals by level of load, where no number of users is asked for."""
    if resolved.scenario.plan.users is not None or not sizing.is_open(resolved):
        return {}
    return {name: sizing.size(load, on_fleet) for name, load in sizing.loads(resolved).items()}


def _candidate(
    search: Search, low: int, high: int, binds: str, carried: dict[str, int], sized: dict[str, Any]
) -> dict[str, Any]:
    resolved, at, beyond = search.resolved, search.points[low].summary, search.points[high].summary
    users = resolved.scenario.plan.users
    nodes = max([fleet["nodes"] for fleet in sized.values()], default=1 if users is None else math.ceil(users / low))
    monthly = cost.monthly_cost(resolved.price, nodes)
    return {
        "node": resolved.scenario.node,
        "parallelism": str(resolved.layout),
        "kv_format": resolved.scenario.kv_format,
        "sessions": {
            "attached": [low, high],
            **{name: [run["sessions"][name]["mean"] for run in (at, beyond)] for name in ("cached", "in_flight")},
        },
        "nodes": nodes,
        "loads": sized,
        "latency": {name: at[name] for name in LATENCIES},
        "goodput": [at["goodput"], beyond["goodput"]],
        "goodput_ci95": [at["goodput_ci95"], beyond["goodput_ci95"]],
        "throughput": at["throughput"],
        "utilisation": at["utilisation"],
        "busy_fraction": at["busy_fraction"],
        "kv": at["kv"],
        "monthly_usd": monthly["monthly_usd"],
        "cost": {**monthly, "usd_per_million_output_tokens": at["cost"]["usd_per_million_output_tokens"]},
        "binds": binds,
        "sessions_when_relaxed": carried,
        "basis": at["basis"],
        "warnings": [
            *at["warnings"],
            *_doubts(at, beyond),
            *_notes(nodes, users, sized),
            *sizing.unseen(resolved, sized),
        ],
    }


def _doubts(at: dict[str, Any], beyond: dict[str, Any]) -> list[str]:
    """Where chance alone could have put a number of sessions on the other side of the target."""
    target, lows_highs = at["slo"]["attained"], (at["goodput_ci95"], beyond["goodput_ci95"])
    if all(interval is not None and not interval[0] < target <= interval[1] for interval in lows_highs):
        return []
    return ["the target lies inside the interval of goodput at the bracket's ends: more replications would narrow it"]


def _notes(nodes: int, users: int | None, sized: dict[str, Any]) -> list[str]:
    asked = users is not None or sized
    notes = [] if asked else ["no users asked for (plan.users): the cost is that of one node"]
    return [*notes, "one node has no redundancy"] if nodes == 1 else notes


def _missed(alone: Run) -> str:
    target = alone.summary["slo"]
    seen = ", ".join(
        f"{name} p95 {alone.summary[name]['p95']:.3g} s against {target[name]:.3g} s"
        for name in LATENCIES
        if name in target and alone.summary[name]["p95"] is not None
    )
    return f"not even one session is served inside the SLO: goodput {alone.summary['goodput']:.1%} ({seen})"


def _remedies(resolved: Resolved) -> list[str]:
    return [
        "relax the threshold that is missed, or slo.attained",
        "shorten the prompts, where TTFT is missed",
        "use smaller weights or a faster node",
    ]
