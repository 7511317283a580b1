"""Where points run: processes of this machine, or a Dask cluster. Any ``concurrent.futures`` executor will do."""

import multiprocessing
import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

from capsim.errors import ScenarioError


def cores() -> int:
    return os.cpu_count() or 1


def processes(jobs: int) -> Executor:
    """So many processes of this machine; Ctrl-C reaches only the one that started them."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cluster(address: str) -> Executor:
    """A Dask cluster at ``tcp://host:port``, whose workers see the same files.

    Raises
    ------
    ScenarioError
        ``distributed`` is not installed, or nobody answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        hint = "pip install 'capsim[cluster]'"
        raise ScenarioError.one("a cluster needs distributed", path="--cluster", hint=hint) from error
    try:
        client: Any = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ScenarioError.one(f"no Dask scheduler answers at {address}", path="--cluster") from error
    executor: Executor = client.get_executor(pure=False)
    return executor
