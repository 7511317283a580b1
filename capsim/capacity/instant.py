"""The instant answer: users inside the SLO by the closed form, from a resolved scenario."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from capsim.errors import ScenarioError
from capsim.estimate.demand import Demand
from capsim.estimate.replica import FINE, Grid, Replica
from capsim.estimate.users import Fleet
from capsim.scenario import Resolved
from capsim.workload import chats
from capsim.workload.chats import Longest
from capsim.workload.requests import draw_lengths, mean_think_s
from capsim.workload.sessions import Prefix, shared_tokens
from capsim.workload.spec import Workload

SAMPLE, POOL, BINS = 512, 8192, 16
"""Requests that a closed form looks at, of so many drawn; and classes of output lengths among which they are spread."""
PAUSES = 8192
POOLED = ("least-loaded", "prefix-aware")
STICKY = ("session-affine", "prefix-aware")


@dataclass(frozen=True)
class Instant:
    """What the closed form says of one fleet: sessions that keep the SLO (0: not even one does), and then requests in
    flight, requests that end each second, goodput, and latencies by name as mean and percentiles."""

    sessions: int
    in_flight: float
    requests_per_s: float
    goodput: float
    latency: dict[str, dict[str, float]]


def fleet_of(resolved: Resolved, grid: Grid = FINE) -> Fleet:
    """The closed form's view of the fleet.

    Raises
    ------
    ScenarioError
        The scenario has no SLO.
    """
    engine = resolved.engine
    blocks, blocks_of = _own_blocks(resolved), resolved.block_rule.blocks
    limits = resolved.max_num_seqs, engine.max_num_batched_tokens
    caches = bool(engine.prefix_caching and resolved.workload.in_sessions)
    replica = Replica(
        resolved.step_time_model(), resolved.model.streams, blocks, blocks_of, *limits, resolved.longest.tokens,
        engine.reserve == "answer", caches, demand_of(resolved), grid,
    )  # fmt: skip
    return of_nodes(resolved, replica, resolved.scenario.nodes)


def of_nodes(resolved: Resolved, replica: Replica, nodes: int) -> Fleet:
    """So many nodes with replicas like this one."""
    slo, router, replicas = resolved.scenario.slo, resolved.scenario.router, resolved.layout.replicas * nodes
    if slo is None:
        hint = "add slo: {ttft_s: 1 s, tpot_s: 50 ms}"
        raise ScenarioError.one("a plan needs a latency target", path=resolved.path, key="slo", hint=hint)
    return Fleet(replica, slo, replicas, router in POOLED, 1.0 if router in STICKY else 1 / replicas)


def _own_blocks(resolved: Resolved) -> int:
    """KV blocks of a replica beside those that hold what prompts have in common."""
    blocks, prefix = resolved.memory.blocks // resolved.layout.pp, resolved.workload.prefix
    if prefix is None or not resolved.engine.prefix_caching:
        return blocks
    groups = prefix.groups.count * prefix.groups.tokens if prefix.groups else 0
    return max(1, blocks - resolved.block_rule.blocks(prefix.global_tokens + groups))


def instant(resolved: Resolved) -> Instant | None:
    """Sessions by the closed form; None where no number of them misses the SLO."""
    return at_limit(fleet_of(resolved))


def at_limit(fleet: Fleet) -> Instant | None:
    """What users see where the fleet carries no more of them."""
    sessions = fleet.most_users()
    if sessions is None:
        return None
    at = max(1, sessions)
    return Instant(sessions, fleet.in_flight(at), fleet.requests_per_s(at), fleet.goodput(at), fleet.latency(at))


def demand_of(resolved: Resolved) -> Demand:
    """A sample of its requests, in sessions or one by one."""
    if resolved.workload.in_sessions:
        return _session_demand(resolved.workload, resolved.longest)
    if resolved.trace is None:
        prompt, output = draw_lengths(resolved.workload, POOL, resolved.longest)
    else:
        prompt, output = resolved.lengths
    rows = spread(prompt, output)
    nothing = np.zeros(len(rows), dtype=int)
    never, first = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=bool)
    think_s = mean_think_s(resolved.workload, resolved.longest)
    return Demand(prompt[rows], output[rows], nothing, nothing, never, first, think_s)


def spread(prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> np.ndarray:
    """Rows of ``SAMPLE`` requests at most, evenly spread over both lengths, so that their means are those of all."""
    requests = len(prompt_tokens)
    if requests <= SAMPLE:
        return np.arange(requests)
    by_output = np.argsort(output_tokens, kind="stable")
    bins = np.arange(requests) * BINS // requests
    order = by_output[np.lexsort((prompt_tokens[by_output], bins))]
    return order[((np.arange(SAMPLE) + 0.5) * requests / SAMPLE).astype(int)]


@lru_cache(maxsize=32)
def _session_demand(workload: Workload, longest: Longest) -> Demand:
    prefix = workload.prefix or Prefix()
    some = chats.sample(workload, PAUSES, longest)
    think_s = float(np.mean([pause for chat in some for pause in chat.pause_s]))
    prompt, output = chats.tokens(some)
    rows = spread(prompt, output)
    reused = np.concatenate([chats.reused_tokens(chat, prefix) for chat in some])
    shared = np.minimum(prompt - 1, shared_tokens(prefix))
    before_s = np.concatenate([[np.inf, *chat.pause_s[:-1]] for chat in some])
    later = np.concatenate([chat.turn for chat in some]) > 0
    return Demand(
        prompt[rows], output[rows], shared[rows], np.maximum(reused, shared)[rows], before_s[rows], later[rows], think_s
    )


def met_pause_s(resolved: Resolved) -> float:
    """Mean length of the pauses as they are met at some instant: longer ones more often. 0 where there are none."""
    workload = resolved.workload
    if workload.in_sessions:
        pauses_s = np.concatenate([chat.pause_s for chat in chats.sample(workload, PAUSES, resolved.longest)])
    elif workload.think_s is not None:
        pauses_s = workload.think_s.draw(np.random.default_rng(3).random((PAUSES, 2)))
    else:
        return 0.0
    return float((pauses_s**2).mean() / pauses_s.mean()) if pauses_s.any() else 0.0
