"""What binds: the same fleet with a tenth more of one resource at a time."""

import itertools
import math
from dataclasses import replace

from capsim.capacity.sessions import Capacity, session_trials
from capsim.capacity.trials import Trials
from capsim.experiment import Run
from capsim.scenario import Resolved
from capsim.stats import t_interval

RELAXED = 1.1
RUNG = 1.02
FEW, ENOUGH = 3, 12
"""Replications of a rung, and those after which two that are still within chance of each other are called alike."""
RESOURCES = ("KV capacity", "memory bandwidth", "compute", "link", "batch cap")
NOTHING = "none of these alone"


def relax(resolved: Resolved, resource: str) -> Resolved:
    """The same fleet with a tenth more of one resource."""
    device, memory, engine = resolved.device, resolved.memory, resolved.engine
    if resource == "KV capacity":
        return resolved.changed(memory=replace(memory, blocks=math.ceil(memory.blocks * RELAXED)))
    if resource == "batch cap":
        seqs = math.ceil(engine.max_num_seqs * RELAXED)
        tokens = max(engine.max_num_batched_tokens, seqs)
        more = {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
        return resolved.changed(engine=engine.model_copy(update=more))
    fields = {
        "memory bandwidth": ("memory_bytes_per_s",), "compute": ("bf16_flops", "fp8_flops", "fp4_flops"),
        "link": ("link_bytes_per_s",),
    }[resource]  # fmt: skip
    faster = {name: rate * RELAXED for name in fields if (rate := getattr(device, name)) is not None}
    return resolved.changed(device=device.model_copy(update=faster))


def what_binds(resolved: Resolved, found: Capacity) -> tuple[str, dict[str, int]]:
    """The resource whose relaxing by a tenth lifts capacity most, and the sessions each carries when relaxed.

    Every relaxed fleet climbs the same ladder of session numbers from the first failing one; those that miss the SLO
    drop out, and the last one standing binds. They are simulated with the first few replications of the first failing
    number, and what these are better by than all of its replications is taken off their goodput.
    Chance has no say: where the last one drops out, its goodput must lie apart from that of the others and of the fleet
    as it is, replication by replication, or they get more of these; those that stay together are named together.
    """
    base, low, high = replace(found.trials, done=dict(found.trials.done)), found.low, found.high  # the bracket stays
    as_it_is = sum(one.good_share for one in base.done[high][:FEW]) / FEW
    assert resolved.scenario.slo is not None
    target = resolved.scenario.slo.attained + as_it_is - base.goodput(high)[0]
    carried = dict.fromkeys(_can_bind(resolved, found.beyond), low)
    trials = {name: session_trials(relax(resolved, name), base.on_trial) for name in carried}
    standing, rung, dropped = list(trials), high, dict.fromkeys(trials, high)
    while len(standing) > 1 or rung == high:
        for name in standing:
            trials[name].replicate(rung, FEW)
        dropped |= dict.fromkeys(standing, rung)
        survivors = [name for name in standing if trials[name].goodput(rung)[0] >= target]
        carried |= dict.fromkeys(survivors, rung)
        if not survivors:
            break
        standing, rung = survivors, max(rung + 1, round(rung * RUNG))
    order = sorted(trials, key=lambda name: (dropped[name], trials[name].goodput(dropped[name])[0]), reverse=True)
    if not order or not _apart(trials[order[0]], base, dropped[order[0]]):
        return NOTHING, carried
    best, *others = order
    together = itertools.takewhile(lambda name: not _apart(trials[best], trials[name], dropped[best]), others)
    return " or ".join([best, *together]), carried


def _apart(better: Trials, other: Trials, sessions: int) -> bool:
    """Whether the one keeps more requests inside the SLO, by the interval of paired differences.

    Both get more replications of that number until it tells, or they have had all that they may.
    """
    while True:
        counts = [len(trials.done.get(sessions, [])) for trials in (better, other)]
        if min(counts) >= FEW:
            pairs = zip(better.done[sessions], other.done[sessions], strict=False)
            mean, half_width = t_interval([one.good_share - two.good_share for one, two in pairs])
            if abs(mean) > half_width or min(counts) >= ENOUGH:
                return mean > half_width
        for trials, count in zip((better, other), counts, strict=True):
            if count == min(counts):
                trials.replicate(sessions)


def relaxable(resolved: Resolved) -> list[str]:
    """Resources that the fleet has."""
    link = resolved.layout.devices > 1 and resolved.device.link_bytes_per_s is not None
    missing = {"link": not link, "batch cap": resolved.engine.serial}
    return [name for name in RESOURCES if not missing.get(name, False)]


def _can_bind(resolved: Resolved, at_limit: Run) -> list[str]:
    """Resources whose relaxing can change anything: a batch that never fills cannot, nor a pool that neither makes
    anybody wait nor drops what comes back."""
    names = ("fullest_blocks", "most_running", "most_waiting")
    peak, running, waiting = (max(r.node_use[name] for r in at_limit.replications) for name in names)
    evicts = any(r.records.evicted_blocks for r in at_limit.replications)
    idle = {
        "KV capacity": not evicts and (waiting == 0 or peak <= resolved.memory.blocks * 0.9),
        "batch cap": waiting == 0 or running < resolved.max_num_seqs,
    }
    return [name for name in relaxable(resolved) if not idle.get(name, False)]
