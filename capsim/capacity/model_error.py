"""What model error does to a node's sessions: the closed form at both ends of the step times, beside the simulation."""

from typing import Any

from capsim.capacity.instant import Instant, instant
from capsim.model_error import model_error
from capsim.scenario import Resolved


def sessions_bracket(resolved: Resolved, first: Instant, carried: tuple[int, int]) -> dict[str, Any]:
    """``model_error`` of a plan: ``sessions`` as [low, high] and the ``step_time`` factors behind it.

    The bracket that was simulated, by the ratio of the closed form's sessions with step times at an end of their error
    to those as they are. A high end of None has no bound: with such step times no number of sessions misses the SLO.
    """
    error = model_error(resolved)
    fast, slow = (instant(resolved.changed(step_factor=factor)) for factor in error.step_time)
    low = carried[0] if slow is None else min(carried[0], _moved(carried[0], first, slow))
    high = None if fast is None else max(carried[1], _moved(carried[1], first, fast))
    return {
        "basis": error.basis, "source": error.source, "figures": error.figures, "step_time": list(error.step_time),
        "sessions": [low, high],
    }  # fmt: skip


def _moved(sessions: int, first: Instant, moved: Instant) -> int:
    return round(sessions * moved.sessions / max(1, first.sessions))


def headline(candidate: dict[str, Any]) -> str:
    """Sessions with both kinds of uncertainty: ``312 sessions per node (330 miss the SLO; 255 to 365 with model
    error)``."""
    passing, failing = candidate["sessions"]["attached"]
    low, high = candidate["model_error"]["sessions"]
    ends = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
    return f"{passing:,} sessions per node ({failing:,} miss the SLO; {ends} with model error)"
