"""A scenario run: replications of the simulation, their identities checked, summed up with intervals."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capsim import __version__, cost
from capsim.glossary import LATENCIES
from capsim.metrics import identities, precise, requests, sessions, steps
from capsim.metrics.sample import Pool, Sample, equally, joined
from capsim.scenario import Resolved
from capsim.scenario.lock import basis_of, locked, run_id
from capsim.sim.cluster import simulate
from capsim.sim.columns import Requests
from capsim.sim.records import Records
from capsim.sim.spec import ClusterSpec, OffloadTier, Policy
from capsim.stats import bounded, t_interval
from capsim.workload.levels import part_met
from capsim.workload.requests import traffic
from capsim.workload.spec import Closed

SCHEMA_VERSION = 1
Progress = Callable[["list[Replication]", int], None]
"""Told the finished replications, and how many requests of the next one have ended."""


class Interrupted(Exception):  # noqa: N818  the user's wish, not a fault
    """Ctrl-C during a search over runs."""


@dataclass(frozen=True)
class Replication:
    """One replication's records and what was measured in them after warm-up; ``totals`` cover all of it."""

    records: Records
    totals: dict[str, int]
    rejected: dict[str, int]
    warmup: int
    window_s: tuple[float, float]
    latencies: dict[str, dict[str, float]]
    batches: dict[str, list[dict[str, float]]]
    throughput: dict[str, float]
    node_use: dict[str, float]
    good_share: float
    growth: tuple[float, float, float]
    sessions: sessions.Sessions | None
    turns: dict[str, dict[str, Any]] | None
    reach: tuple[dict[int, float], int]
    ended_s: float


@dataclass(frozen=True)
class Run:
    """A finished (or interrupted) run: its replications and its summary, which is what JSON output prints."""

    resolved: Resolved
    replications: list[Replication]
    summary: dict[str, Any]


def cluster_of(resolved: Resolved) -> ClusterSpec:
    engine = resolved.engine
    policy = Policy(
        resolved.max_num_seqs, engine.max_num_batched_tokens, resolved.scenario.scheduler.queue_limit,
        engine.prefill_first, engine.chunked_prefill, engine.joins_running, engine.reserve,
        bool(engine.prefix_caching),
    )  # fmt: skip
    return ClusterSpec(
        resolved.scenario.nodes, resolved.layout, resolved.memory.blocks, resolved.block_rule, policy,
        resolved.model.max_context_tokens, resolved.scenario.router, resolved.step_time_model(),
        resolved.model.streams, _tiers(resolved),
    )  # fmt: skip


def _tiers(resolved: Resolved) -> tuple[OffloadTier, ...]:
    """Each replica's equal share of what its node has below the devices."""
    offload, replicas, block_bytes = resolved.scenario.kv_offload, resolved.layout.dp, resolved.replica_block_bytes
    return tuple(
        OffloadTier(name, int(tier.capacity / replicas // block_bytes), block_bytes * replicas / tier.bandwidth)
        for name, tier in (offload.tiers.items() if offload else ())
    )


def replicate(resolved: Resolved, replication: int, on_progress: Callable[[int], None] | None = None) -> Replication:
    """Run one replication and measure it."""
    workload, seed = resolved.workload, resolved.scenario.seed
    load = traffic(workload, resolved.trace, seed, replication, resolved.longest, resolved.response)
    records = simulate(cluster_of(resolved), load, on_progress)
    return measure(resolved, records)


def measure(resolved: Resolved, records: Records) -> Replication:
    """What one replication's tables say once warm-up is cut."""
    table = records.requests_columns()
    pinned = 0 if resolved.replays and resolved.workload.warmup_requests is None else resolved.workload.warmup_requests
    warmup = requests.warmup_requests(table, pinned)
    measured = requests.measured(table, warmup)
    start_s, end_s = requests.window(measured)
    done = steps.read(
        records.segments.parts(steps.COLUMNS), records.segments.rows, start_s, end_s, resolved.replicas
    )  # fmt: skip
    stalls_s = records.stalls()
    identities.check(table, stalls_s, done, records.kv_blocks)
    gaps = _with_stalls(done.itl, stalls_s[stalls_s.index >= warmup], len(table))
    seen = {"itl_s": (joined(gaps).summary(), [part.summary() for part in gaps])}
    for name in requests.SPANS:
        sample = requests.latency(measured, name)
        seen[name] = sample.summary(), [part.summary() for part in sample.batches()]
    flow = requests.throughput(table, start_s, end_s)
    use = steps.node_use(done, resolved.replicas, resolved.memory.blocks, end_s - start_s)
    good = _good(resolved, records, measured, stalls_s)
    closed = isinstance(resolved.workload.arrival, Closed)
    return Replication(
        records, {**requests.totals(table), "steps": done.steps}, requests.rejections(table), warmup, (start_s, end_s),
        {name: whole for name, (whole, _) in seen.items()}, {name: parts for name, (_, parts) in seen.items()},
        flow,
        use,
        requests.good_share(measured, good),
        (0.0, 0.0, 0.0) if closed else requests.backlog_growth(table),
        _sessions(resolved, records, requests.after(table, warmup), use["in_flight"]),
        sessions.by_turn(measured, good) if resolved.workload.in_sessions or _trace_has_sessions(resolved) else None,
        (done.contexts, done.most_tokens),
        float(table["finished_s"].max()),
    )  # fmt: skip


def _with_stalls(pools: list[Pool], stalls_s: pd.Series, offered: int) -> list[Sample]:
    """Gaps of steps and of preemptions, in consecutive batches."""
    batch = stalls_s.index.to_numpy() * len(pools) // max(offered, 1)
    for index, pool in enumerate(pools):
        pool.add(equally(stalls_s.to_numpy()[batch == index]))
    return [pool.sample() for pool in pools]


def _good(resolved: Resolved, records: Records, measured: Requests, stalls_s: pd.Series) -> np.ndarray:
    """Whether each measured request kept the SLO; NaN where there is none. Shape (n,)."""
    slo = resolved.scenario.slo
    if slo is None:
        return np.full(len(measured), np.nan)
    longest = None
    if "itl_s" in slo.later_thresholds:
        longest = steps.longest_gap(measured, stalls_s, records.segments.parts(steps.COLUMNS)).to_numpy()
    return requests.good(measured, slo.thresholds, slo.later_thresholds, longest)


def _sessions(resolved: Resolved, records: Records, measured: Requests, in_flight: float) -> sessions.Sessions | None:
    """Attached, cached and in-flight sessions; none where requests come one by one.

    Users without a session say nothing twice: their KV is resident just while their request runs. Whose KV is resident
    is not known of a trace's sessions, nor how long they paused where it is replayed open.
    """
    workload = resolved.workload
    start_s, end_s = requests.window(measured)
    batch = {"mean": in_flight, "peak": sessions.peak_in_flight(measured, start_s, end_s)}
    levels: sessions.Sessions = {"cycle": sessions.cycle(measured, end_s - start_s)}
    if workload.in_sessions:
        levels |= sessions.counted(records.sessions.parts(sessions.COLUMNS), start_s, end_s)
    elif isinstance(workload.arrival, Closed):
        users = float(workload.arrival.users)
        levels |= {"attached": {"mean": users, "peak": users}, "cached": batch}
    elif _trace_has_sessions(resolved):
        levels |= {"attached": sessions.attached(measured, start_s, end_s), "cached": None}
        if workload.replay == "open":
            levels["cycle"] = None
    else:
        return None
    return levels | {"in_flight": batch}


def _trace_has_sessions(resolved: Resolved) -> bool:
    """Whether a trace is replayed whose sessions are known."""
    known = resolved.trace is not None and resolved.trace.session is not None
    return resolved.replays and (known or resolved.workload.replay == "closed")


def planned(resolved: Resolved) -> int:
    """Replications of a run: a trace that is replayed has nothing to draw."""
    return 1 if resolved.replays else resolved.scenario.replications


def run(resolved: Resolved, on_progress: Progress | None = None) -> Run:
    """All replications and their summary. An interrupt keeps what is finished, or the one begun if none is."""
    done: list[Replication] = []
    interrupted, told = False, (lambda ended: on_progress(done, ended)) if on_progress else None
    fewest, precision = planned(resolved), None if resolved.replays else resolved.scenario.precision
    for index in range(precise.most(fewest, precision)):
        try:
            done.append(replicate(resolved, index, told))
            interrupted = done[-1].records.interrupted
        except KeyboardInterrupt:  # between two simulations
            if not done:
                raise
            interrupted = True
        vague = len(done) < fewest or precise.vague([one.latencies for one in done], precision)
        if interrupted or not vague or (len(done) >= fewest and saturated(done)[0]):
            break
    whole = [replication for replication in done if not replication.records.interrupted]
    return Run(resolved, done, summarise(resolved, whole or done, interrupted=interrupted))


def run_whole(resolved: Resolved) -> Run:
    """All replications, for a search that has no use for a part of them.

    Raises
    ------
    Interrupted
        Ctrl-C.
    """
    done = run(resolved)
    if done.summary["run"]["interrupted"]:
        raise Interrupted
    return done


def saturated(replications: list[Replication]) -> tuple[bool, float]:
    """Whether the backlog grows without end, and how fast (requests per second).

    It does when the growth over the second half of the arrivals is more than a hundredth of the arrival rate and its
    interval (over replications, or over time where there is one) lies above zero.
    """
    growths = np.array([r.growth[0] for r in replications])
    mean, half_width = t_interval(growths) if len(growths) > 1 else (growths[0], replications[0].growth[1])
    rate = float(np.mean([r.growth[2] for r in replications]))
    significant = mean - (0.0 if np.isnan(half_width) else half_width) > 0
    return bool(rate > 0 and significant and mean > requests.SATURATED_GROWTH * rate), float(mean)


def summarise(resolved: Resolved, replications: list[Replication], *, interrupted: bool = False) -> dict[str, Any]:
    """The JSON document of a run. Percentiles are withheld where the load has no steady state."""
    scenario = resolved.scenario
    is_saturated, growth = saturated(replications)
    totals = _totals(replications)
    lock = locked(resolved)
    flow = {key: _mean([r.throughput[key] for r in replications]) for key in replications[0].throughput}
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "scenario": lock,
        "run": {
            "id": run_id(lock), "version": __version__, "seed": scenario.seed, "replications": len(replications),
            "warmup_requests": int(np.mean([r.warmup for r in replications])),
            "measured_s": _mean([r.window_s[1] - r.window_s[0] for r in replications]), "interrupted": interrupted,
        },
        "saturated": None if isinstance(resolved.workload.arrival, Closed) else is_saturated,
        "backlog_growth_per_s": growth,
        "requests": {
            **{name: totals[name] for name in ("offered", *requests.OUTCOMES, "asks")},
            "served_share": totals["completed"] / totals["asks"] if totals["asks"] else None,
        },
        "throughput": flow,
    }  # fmt: skip
    for name in LATENCIES:
        summary[name] = _latency(replications, name, withhold=is_saturated)
    by_session = {
        "sessions": _averaged([r.sessions for r in replications]),
        "turns": _averaged([r.turns for r in replications]),
    }
    return summary | by_session | _targets(resolved, replications) | _nodes(resolved, replications, flow, totals) | {
        "basis": basis_of(resolved),
        "warnings": _warnings(resolved, replications, is_saturated, growth, interrupted),
    }  # fmt: skip


def _targets(resolved: Resolved, replications: list[Replication]) -> dict[str, Any]:
    slo = resolved.scenario.slo
    if slo is None:
        return {"goodput": None, "goodput_ci95": None, "slo": None}
    mean, half_width = t_interval([r.good_share for r in replications])
    later = {} if slo.later_turns is None else {"later_turns": slo.later_thresholds}
    target = {**slo.thresholds, **later, "attained": slo.attained, "passed": bool(mean >= slo.attained)}
    return {"goodput": mean, "goodput_ci95": bounded(mean, half_width, 1.0), "slo": target}


def _totals(replications: list[Replication]) -> dict[str, int]:
    return {name: sum(r.totals[name] for r in replications) for name in replications[0].totals}


def _nodes(
    resolved: Resolved, replications: list[Replication], flow: dict[str, float], totals: dict[str, int]
) -> dict[str, Any]:
    use = {key: _mean([r.node_use[key] for r in replications]) for key in replications[0].node_use}
    monthly = cost.monthly_cost(resolved.price, resolved.scenario.nodes)
    output = flow["output_tokens_per_s"]
    kinds = {"output_tokens": output, "tokens": output + flow["input_tokens_per_s"]}
    # The batches of a pipeline each report the pool that they share.
    peak_blocks = max(r.node_use["kv_peak_blocks"] for r in replications) / resolved.layout.pp
    peak = peak_blocks * resolved.memory.block_tokens
    saturation = resolved.saturation().requests_per_s * resolved.replicas
    return {
        "kv": {
            "capacity_tokens": resolved.capacity_tokens, "peak_tokens": int(peak),
            "mean_utilisation": use["kv_mean_utilisation"],
            "hit_rate": totals["cached_tokens"] / totals["prompt_tokens"] if totals["prompt_tokens"] else 0.0,
            "evicted_blocks": sum(r.records.evicted_blocks for r in replications),
            "offload": _offload(resolved, replications, totals),
        },
        "preemptions": totals["preemptions"],
        "steps": totals["steps"],
        "step_time_share": {name.removesuffix("_s"): use[f"share_{name}"] for name in steps.COMPONENTS},
        "utilisation": flow["requests_per_s"] / saturation,
        "busy_fraction": use["busy_fraction"],
        "in_flight": use["in_flight"],
        "cost": {**monthly, **cost.unit_costs(monthly["monthly_usd"], kinds)},
        "api": None if resolved.api_tier is None else cost.api_bill(resolved.api_tier, flow),
    }  # fmt: skip


def _offload(resolved: Resolved, replications: list[Replication], totals: dict[str, int]) -> dict[str, Any] | None:
    """What was found where, and what moved between the KV pools and the tiers below them."""
    if resolved.scenario.kv_offload is None:
        return None
    block_bytes, prompt_tokens = resolved.replica_block_bytes, totals["prompt_tokens"]
    pools = resolved.layout.dp * resolved.scenario.nodes
    device_tokens = totals["cached_tokens"] - totals["loaded_tokens"]
    result: dict[str, Any] = {"device_hit_rate": device_tokens / prompt_tokens if prompt_tokens else 0.0}
    for index, tier in enumerate(_tiers(resolved)):
        uses = [r.records.offload[index] for r in replications]
        hit_tokens = sum(use.hit_tokens for use in uses)
        result[tier.name] = {
            "capacity_tokens": tier.blocks * resolved.memory.block_tokens * pools,
            "hit_rate": hit_tokens / prompt_tokens if prompt_tokens else 0.0,
            "loaded_bytes": sum(use.loaded_blocks for use in uses) * block_bytes,
            "stored_bytes": sum(use.stored_blocks for use in uses) * block_bytes,
            "link_utilisation": sum(use.busy_s for use in uses) / (pools * sum(r.ended_s for r in replications)),
        }
    return result | {"evicted_blocks": sum(r.records.lost_blocks for r in replications)}


def _averaged(parts: list[Any]) -> Any:
    """Like parts of several replications, each number their mean; None where none of them knows it."""
    if isinstance(parts[0], dict):
        return {name: _averaged([part[name] for part in parts]) for name in parts[0]}
    known = [value for value in parts if value is not None and not np.isnan(value)]
    return _mean(known) if known else None


def _latency(replications: list[Replication], latency: str, *, withhold: bool) -> dict[str, Any]:
    """Means over replications of the mean and the percentiles, with 95 % intervals of the mean and of p95.

    One replication takes its intervals from consecutive batches of itself: requests that share a queue are alike, and
    order statistics of them all (``stats.quantile_interval``) would promise more than they know.
    """
    rows = [r.latencies[latency] for r in replications]
    means = {key: _mean([row[key] for row in rows]) for key in rows[0]}
    batches = rows if len(rows) > 1 else replications[0].batches[latency]
    result: dict[str, Any] = {**means, "ci95": None, "p95_ci95": None}
    if withhold or np.isnan(means["mean"]):
        return dict.fromkeys(result)
    for key, name in (("mean", "ci95"), ("p95", "p95_ci95")):
        values = [row[key] for row in batches if not np.isnan(row[key])]
        result[name] = bounded(means[key], t_interval(values)[1]) if values else None
    return result


def _warnings(
    resolved: Resolved, replications: list[Replication], is_saturated: bool, growth: float, interrupted: bool
) -> list[str]:
    notes = [*resolved.warnings, *_beyond_measured(resolved, replications)]
    if not (interrupted or is_saturated or resolved.replays):
        notes += precise.notes([one.latencies for one in replications], resolved.scenario.precision)
    if is_saturated:
        notes.append(f"no steady state: the backlog grows by {growth:.3g} requests/s; latency percentiles are withheld")
    reasons = sum((Counter(r.rejected) for r in replications), Counter())
    notes += [f"{count:,} requests rejected: {reason}" for reason, count in reasons.most_common()]
    if resolved.trace is None and not interrupted:
        notes += sessions.not_steady([r.sessions for r in replications if r.sessions is not None])
    notes += part_met(resolved.workload.arrival, *np.mean([r.window_s for r in replications], axis=0).tolist())
    if interrupted:
        notes.append("interrupted: the figures cover what had ended by then")
    if any(r.warmup > r.totals["offered"] / 2 for r in replications):
        notes.append("warm-up is more than half of the run: offer more requests")
    for name, tier in (_offload(resolved, replications, _totals(replications)) or {}).items():
        if isinstance(tier, dict) and tier["link_utilisation"] > 1:
            more = f"{tier['link_utilisation']:.1f} times what its link can"
            notes.append(f"KV moves to and from {name} at {more}: less of it would be found there")
    if resolved.price is None:
        notes.append(f"price unknown: the catalog has none for {resolved.scenario.node}")
    return notes


def _beyond_measured(resolved: Resolved, replications: list[Replication]) -> list[str]:
    """What of a run lies outside the sizes that its step times were measured at."""
    contexts: dict[int, float] = {}
    for replication in replications:
        for sequences, context in replication.reach[0].items():
            contexts[sequences] = max(context, contexts.get(sequences, 0.0))
    return resolved.step_time_model().beyond(contexts, max(replication.reach[1] for replication in replications))


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
