"""Sessions for a scenario that has a trace of some: a closed loop cannot replay when they came."""

from capsim.scenario import Resolved
from capsim.workload.fit_sessions import as_sessions


def with_drawn_sessions(resolved: Resolved) -> Resolved:
    """The same with sessions fitted to its trace, where the trace's contexts grow; else as it is."""
    if resolved.trace is None:
        return resolved
    workload = as_sessions(resolved.workload, resolved.trace)
    if workload is None:
        return resolved
    note = "sessions per node are of sessions drawn as fitted to the trace, not of a replay"
    return resolved.changed(workload=workload, trace=None, warnings=(*resolved.warnings, note))
