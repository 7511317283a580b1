"""Sessions for a scenario that has a trace of some: a closed loop cannot replay when they came."""

from dataclasses import replace

from capsim.scenario import Resolved
from capsim.workload.fit_sessions import as_sessions
from capsim.workload.requests import sample_lengths, sample_reused
from capsim.workload.trace_figures import reuse


def with_drawn_sessions(resolved: Resolved) -> Resolved:
    """The same with sessions fitted to its trace, where the trace's contexts grow; else with its requests, one by one.

    A warning says what of the prompts either has sent before, beside what the trace has.
    """
    trace = resolved.trace
    if trace is None:
        return resolved
    workload, seen = as_sessions(resolved.workload, trace), reuse(trace)
    if workload is None:
        if not seen:
            return resolved
        note = (
            "sessions per node are of requests drawn from the trace one by one, which share nothing: "
            f"a cache that forgets nothing would hold {seen:.0%} of the trace's prompt tokens"
        )
        return replace(resolved, warnings=(*resolved.warnings, note))
    note = "sessions per node are of sessions drawn as fitted to the trace, not of a replay"
    if seen is not None:
        sent = (
            sample_reused(workload, resolved.longest).sum() / sample_lengths(workload, None, resolved.longest)[0].sum()
        )
        note += f": {sent:.0%} of their prompt tokens were sent before, of the trace's {seen:.0%}"
    return replace(resolved, workload=workload, trace=None, warnings=(*resolved.warnings, note))
