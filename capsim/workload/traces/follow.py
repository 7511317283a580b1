"""Which request of a trace follows which: as the trace says, or as prompts that begin with whole earlier ones show."""

import numpy as np

from capsim.workload.traces.trace import PrefixHashes, Trace

FEWEST_BLOCKS = 2
"""A shorter prompt is no context to tell a session by: everybody's first block may be a system prompt."""
GROWS = 0.8
"""Share of later prompts that are long enough to hold the last one and its answer from which on contexts grow."""


def follows(trace: Trace) -> np.ndarray | None:
    """The row of the request that each one follows, −1 where it follows none. Shape (n,); None where nothing tells."""
    if trace.parent is not None:
        return trace.parent
    if trace.session is not None:
        return _last_of_session(trace.session, trace.turn)
    return None if trace.prefix_hashes is None else _grown_from(trace.prompt_tokens, trace.prefix_hashes)


def earlier(trace: Trace) -> np.ndarray | None:
    """``follows`` where it is an earlier row; −1 elsewhere, as of a turn that comes before the one it follows."""
    found = follows(trace)
    return None if found is None else np.where(found < np.arange(len(found)), found, -1)


def extends(trace: Trace) -> np.ndarray | None:
    """The earlier row that each prompt goes on from: −1 where it follows none, or is shorter than that one with its
    answer. Shape (n,); None where the contexts of the trace do not grow, or nothing tells."""
    followed = earlier(trace)
    if followed is None or not (followed >= 0).any():
        return None
    grown = trace.prompt_tokens >= trace.prompt_tokens[followed] + trace.output_tokens[followed]
    return np.where(grown, followed, -1) if grown[followed >= 0].mean() >= GROWS else None


def why_not_closed(trace: Trace) -> str:
    """Why its later turns cannot wait for earlier ones; empty where they can."""
    found = earlier(trace)
    if found is None:
        return "the trace has no sessions: neither a session, nor a request and its parent"
    if trace.think_s is None:
        return "the trace has no think_s, the pause before a later turn"
    unknown = int((~(trace.think_s >= 0) & (found >= 0)).sum())
    return f"{unknown:,} later turns of the trace have no think_s of at least zero" if unknown else ""


def sessions_of(trace: Trace) -> np.ndarray | None:
    """A number for each request's session, −1 where it is unknown. Shape (n,); None where nothing tells."""
    if trace.session is not None:
        return trace.session
    followed = follows(trace)
    return None if followed is None else roots(followed)


def roots(follows: np.ndarray) -> np.ndarray:
    """The first request of each one's chain."""
    found = np.arange(len(follows))
    for row, before in enumerate(follows.tolist()):
        if 0 <= before < row:
            found[row] = found[before]
    return found


def _last_of_session(session: np.ndarray, turn: np.ndarray | None) -> np.ndarray:
    """By turns where they are known, else by arrival."""
    rows = np.arange(len(session))
    order = np.lexsort((rows, rows if turn is None else np.nan_to_num(turn, nan=np.inf), session))
    found = np.full(len(session), -1)
    same = (np.diff(session[order]) == 0) & (session[order][1:] >= 0)
    found[order[1:][same]] = order[:-1][same]
    return found


def _grown_from(prompt_tokens: np.ndarray, hashes: PrefixHashes) -> np.ndarray:
    """The request whose whole prompt, in full blocks, is the longest to begin this one's; of equals the latest."""
    ends: dict[int, int] = {}
    found = np.full(len(prompt_tokens), -1)
    for row, tokens in enumerate(prompt_tokens.tolist()):
        blocks = hashes.of(row).tolist()
        found[row] = next((ends[block] for block in reversed(blocks) if block in ends), -1)
        full = min(tokens // hashes.tokens, len(blocks))
        if full >= FEWEST_BLOCKS:
            ends[blocks[full - 1]] = row
    return found
