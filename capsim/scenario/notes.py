"""What the reader of a result should know of its workload."""

from capsim.errors import ScenarioError
from capsim.scenario.resolved import Resolved
from capsim.workload.traces.follow import GROWS, earlier, extends


def session_notes(resolved: Resolved) -> list[str]:
    """Refuse a session whose prompts are always longer than where they should be cut; tell of some that are, and of
    retries that never come."""
    session, workload = resolved.workload.session, resolved.workload
    if session is None:
        return []
    notes = []
    if session.compaction is not None:
        at, share = session.compaction.at_tokens, (resolved.lengths[0] > session.compaction.at_tokens).mean()
        if share == 1:
            message = f"every prompt is longer than the {at:,} tokens at which contexts are cut"
            hint = "raise at_tokens, or shorten prompt_tokens, or to_tokens and new_tokens together"
            raise ScenarioError.one(message, key="workload.session.compaction", hint=hint)
        if share > 0:
            what = "first ones, or summaries with what is new"
            notes.append(f"{share:.1%} of prompts are longer than compaction.at_tokens ({what}) and stay so")
    if session.retries and resolved.scenario.scheduler.queue_limit is None and workload.max_in_flight is None:
        notes.append("session.retries never come: without a queue_limit or max_in_flight nobody is turned away")
    return notes


def trace_notes(resolved: Resolved) -> list[str]:
    """What is not known, or not used, of the KV that requests of a trace share."""
    trace = resolved.trace
    if trace is None:
        return []
    hashed, grown = trace.prefix_hashes is not None, extends(trace) is not None
    if resolved.workload.arrival is not None:
        lost = "lengths are drawn from the trace and its prefixes are left out: no request shares KV with another"
        return [lost] if hashed or grown else []
    followed = earlier(trace)
    if hashed or followed is None or not (followed >= 0).any() or not resolved.engine.prefix_caching:
        return []
    if grown:
        return ["the trace has no prefix hashes: later prompts are taken to begin with the last one and its answer"]
    short = f"fewer than {GROWS:.0%} of later prompts are long enough to hold the last one and its answer"
    return [f"{short}: no request is taken to share KV with another"]
