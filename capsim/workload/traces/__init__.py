"""Traces of real requests: when each came, how long it was and, where known, what it belonged to."""

from capsim.workload.traces.read import PATHS, read_trace
from capsim.workload.traces.trace import PrefixHashes, Trace

__all__ = ["PATHS", "PrefixHashes", "Trace", "read_trace"]
