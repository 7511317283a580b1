"""How many sessions a fleet carries inside its SLO, which fleet that takes, and what binds."""

from capsim.capacity.answers import answers
from capsim.capacity.binds import relax, what_binds
from capsim.capacity.instant import Instant, instant
from capsim.capacity.inverse import fastest_answers, longest_context
from capsim.capacity.plan import plan
from capsim.capacity.sessions import Capacity, find_capacity, with_sessions

__all__ = [
    "Capacity", "Instant", "answers", "fastest_answers", "find_capacity", "instant", "longest_context", "plan", "relax",
    "what_binds", "with_sessions",
]  # fmt: skip
