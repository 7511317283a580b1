"""Predicted against measured: the runs of a real engine at hand, and points that others published."""

from capsim.validate.engine import ENOUGH_RUNS, SCHEMA_VERSION, validate

__all__ = ["ENOUGH_RUNS", "SCHEMA_VERSION", "validate"]
