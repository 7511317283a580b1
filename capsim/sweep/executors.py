"""Where points run: processes of this machine, or a Dask cluster. Any ``concurrent.futures`` executor will do."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from capsim.errors import ScenarioError


def cores() -> int:
    return os.cpu_count() or 1


@contextmanager
def processes(jobs: int) -> Iterator[Executor]:
    """So many processes of this machine. They leave Ctrl-C to the one that started them, and end with it, even where
    that is killed: each holds one end of a pipe whose other end goes down with it.

    Raises
    ------
    ScenarioError
        None of them starts.
    """
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _begin, (theirs,))
    began = pool.submit(os.getpid)
    try:
        yield pool
        if isinstance(began.exception(), BrokenExecutor):
            hint = "a script must call run_sweep under: if __name__ == '__main__':"
            raise ScenarioError.one("no process for points starts", key="run_sweep", hint=hint)
    finally:
        ours.close()
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(starter: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(starter,), daemon=True).start()


def _end_with(starter: Connection) -> None:
    try:
        starter.recv_bytes()
    except EOFError:
        os._exit(1)


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
