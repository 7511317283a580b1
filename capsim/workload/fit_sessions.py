"""Sessions fitted to a trace whose contexts grow: how many turns, what each adds, and the time between two."""

from collections import Counter
from typing import Any

import numpy as np

from capsim.workload.cut_off import Seen, seen
from capsim.workload.fit_lengths import fit_tokens, quantile_grid
from capsim.workload.spec import Workload
from capsim.workload.traces import PrefixHashes, Trace
from capsim.workload.traces.follow import earlier, extends, roots

SHARED = 0.95
"""Share of prompts that begin with a block from which on it counts as everybody's."""
SHORTEST_S = 1e-3


def fit_sessions(trace: Trace) -> dict[str, Any] | None:
    """A workload's session, first prompts, pauses and prefix; None where contexts do not grow."""
    followed = earlier(trace)
    if followed is None or extends(trace) is None:
        return None
    later = np.flatnonzero(followed >= 0)
    last = followed[later]
    new = trace.prompt_tokens[later] - trace.prompt_tokens[last] - trace.output_tokens[last]
    shown = seen(roots(followed), trace.arrival_s)
    pauses_s, weights = _pauses(trace, shown)
    turns = quantile_grid(np.arange(1.0, len(shown.turns) + 1), shown.turns)
    shared_tokens = 0 if trace.prefix_hashes is None else _shared_tokens(trace.prefix_hashes)
    return {
        "prompt_tokens": fit_tokens(trace.prompt_tokens[followed < 0])[0],
        "think_s": quantile_grid(np.maximum(pauses_s, SHORTEST_S), weights),
        "session": {"turns": turns, "new_tokens": quantile_grid(np.maximum(new, 1))},
        **({"prefix": {"global_tokens": shared_tokens}} if shared_tokens else {}),
    }


def as_sessions(workload: Workload, trace: Trace) -> Workload | None:
    """The same with sessions fitted to its trace in the trace's place, paused as it says; None where none show."""
    found = fit_sessions(trace)
    if found is None:
        return None
    pauses = {} if workload.think_s is None else {"think_s": workload.think_s}
    fitted = {**found, "output_tokens": fit_tokens(trace.output_tokens)[0], **pauses}
    return workload.changed(trace=None, columns=None, replay="open", **fitted)


def _pauses(trace: Trace, shown: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Those that the trace knows, and their weights; where it knows none the gaps from arrival to arrival."""
    known_s = np.full(len(trace), np.nan) if trace.think_s is None else trace.think_s
    known = np.isfinite(known_s[shown.later])
    if not known.any():
        return shown.gaps_s, shown.weights
    return known_s[shown.later][known], shown.weights[known]


def _shared_tokens(hashes: PrefixHashes) -> int:
    """Tokens of the leading blocks that nearly all prompts begin with."""
    requests = len(hashes.offsets) - 1
    place = 0
    while True:
        at_place = [blocks[place] for blocks in map(hashes.of, range(requests)) if len(blocks) > place]
        if not at_place or Counter(at_place).most_common(1)[0][1] < SHARED * requests:
            return place * hashes.tokens
        place += 1
