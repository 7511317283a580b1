"""Traces of real requests: when each came, how long it was and, where known, what it belonged to."""

from pathlib import Path

from capsim.workload.traces.trace import PATHS, PrefixHashes, Trace

__all__ = ["PATHS", "PrefixHashes", "Trace", "read_trace"]


def read_trace(path: Path, columns: dict[str, str] | None = None) -> Trace:
    """Read a CSV or JSON-lines trace, or a vLLM benchmark result: see ``read``."""
    from capsim.workload.traces.read import read_trace as read  # brings pandas, which is slow to import

    return read(path, columns)
