"""Levers on the cost of a token: each alone, one after the other, all together, and the average over all orders."""

from capsim.levers.document import stack
from capsim.levers.spec import Lever, Stack, load_stack

__all__ = ["Lever", "Stack", "load_stack", "stack"]
