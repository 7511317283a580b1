"""Capacity planning for LLM inference."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsim.api import estimate_cost, find_capacity, load_scenario, run_sweep, simulate, summarize

__version__ = "0.1.0"
__all__ = ["estimate_cost", "find_capacity", "load_scenario", "run_sweep", "simulate", "summarize"]


def __getattr__(name: str) -> Any:
    """The API is loaded when it is first used, so that the command line starts quickly."""
    if name not in __all__:
        raise AttributeError(f"module 'capsim' has no attribute '{name}'")
    from capsim import api

    return getattr(api, name)
