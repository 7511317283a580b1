"""What model error does to a node: to its sessions by the closed form, to what users see by simulation."""

from typing import Any

from capsim.capacity.instant import Instant, instant
from capsim.experiment import Interrupted, Run
from capsim.model_error import bracketed
from capsim.scenario import Resolved


def with_model_error(
    resolved: Resolved, first: Instant, carried: tuple[int, int], at_limit: Run
) -> tuple[dict[str, Any], Run]:
    """``model_error`` of a plan, and the run at the last passing number of sessions with its own.

    The plan's is the run's, as that many sessions see it, and ``sessions`` as [low, high].

    Raises
    ------
    Interrupted
        Ctrl-C.
    """
    told = bracketed(at_limit)
    error = told.summary["model_error"]
    if error is None:
        raise Interrupted
    return error | {"sessions": sessions_bracket(resolved, error["step_time"], first, carried)}, told


def sessions_bracket(
    resolved: Resolved, step_time: list[float], first: Instant, carried: tuple[int, int]
) -> list[int | None]:
    """The bracket that was simulated, moved by the ratio of the closed form's sessions with step times at an end of
    their error to those as they are.

    A high end of None has no bound: with such step times no number of sessions misses the SLO.
    """
    fast, slow = (instant(resolved.changed(step_factor=factor)) for factor in step_time)
    low = carried[0] if slow is None else min(carried[0], _moved(carried[0], first, slow))
    return [low, None if fast is None else max(carried[1], _moved(carried[1], first, fast))]


def _moved(sessions: int, first: Instant, moved: Instant) -> int:
    return round(sessions * moved.sessions / max(1, first.sessions))


def headline(candidate: dict[str, Any]) -> str:
    """Sessions with both kinds of uncertainty: ``312 sessions per node (330 miss the SLO; 255 to 365 with model
    error)``."""
    passing, failing = candidate["sessions"]["attached"]
    low, high = candidate["model_error"]["sessions"]
    ends = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
    return f"{passing:,} sessions per node ({failing:,} miss the SLO; {ends} with model error)"
