"""What binds: the same fleet with a tenth more of one resource at a time."""

import math
from dataclasses import replace

from capsim.capacity.sessions import Capacity, session_trials
from capsim.capacity.trials import Trials
from capsim.experiment import Run
from capsim.scenario import Resolved

RELAXED = 1.1
RUNG = 1.02
RESOURCES = ("KV capacity", "memory bandwidth", "compute", "link", "batch cap")
NOTHING = "none of these alone"


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


def what_binds(resolved: Resolved, found: Capacity) -> tuple[str, dict[str, int]]:
    """The resource whose relaxing by a tenth lifts capacity most, and the sessions each carries when relaxed.

    Every relaxed fleet climbs the same ladder of session numbers from the first failing one; those that miss the SLO
    drop out, and the last one standing binds. Fleets that drop out on the same rung are told apart by goodput there; on
    the first rung it must be more than that of the fleet as it is.
    They are simulated with the first few replications of the first failing number, and what these are better by than
    all of its replications is taken off their goodput.
    """
    base, low, high = found.trials, found.low, found.high
    few = min(len(base.done[high]), resolved.scenario.replications)
    as_it_is = sum(one.good_share for one in base.done[high][:few]) / few
    assert resolved.scenario.slo is not None
    target = resolved.scenario.slo.attained + as_it_is - base.goodput(high)[0]
    carried = dict.fromkeys(_can_bind(resolved, found.beyond), low)
    trials = {name: session_trials(relax(resolved, name), base.on_trial) for name in carried}
    standing, rung, goodput = list(trials), high, dict.fromkeys(trials, 0.0)
    while len(standing) > 1 or rung == high:
        goodput |= {name: _goodput(trials[name], rung, few) for name in standing}
        survivors = [name for name in standing if goodput[name] >= target]
        carried |= dict.fromkeys(survivors, rung)
        if not survivors:
            break
        standing, rung = survivors, max(rung + 1, round(rung * RUNG))
    best = max(standing, key=lambda name: (carried[name], goodput[name]), default=None)
    if best is None or (goodput[best] <= as_it_is and carried[best] == low):
        return NOTHING, carried
    return best, carried


def _goodput(trials: Trials, sessions: int, replications: int) -> float:
    trials.replicate(sessions, replications)
    return trials.goodput(sessions)[0]


def relaxable(resolved: Resolved) -> list[str]:
    """Resources that the fleet has."""
    link = resolved.layout.devices > 1 and resolved.device.link_bytes_per_s is not None
    missing = {"link": not link, "batch cap": resolved.engine.serial}
    return [name for name in RESOURCES if not missing.get(name, False)]


def _can_bind(resolved: Resolved, at_limit: Run) -> list[str]:
    """Resources whose relaxing can change anything: a pool or a batch that never fills cannot."""
    names = ("fullest_blocks", "most_running", "most_waiting")
    peak, running, waiting = (max(r.node_use[name] for r in at_limit.replications) for name in names)
    idle = {
        "KV capacity": waiting == 0 or peak <= resolved.memory.blocks * 0.9,
        "batch cap": waiting == 0 or running < resolved.max_num_seqs,
    }
    return [name for name in relaxable(resolved) if not idle.get(name, False)]
