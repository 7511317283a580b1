"""Who computes points: processes of our own, or any executor of ``concurrent.futures``."""

import multiprocessing
import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, Protocol

from capsim.capacity import plan
from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import Interrupted, run_whole
from capsim.scenario import Resolved
from capsim.sweep import figures

AHEAD = 64
"""Points handed at once to an executor that is not ours: enough for its workers, few enough to hold in memory."""


class Crew(Protocol):
    """Takes up to ``width`` points at once."""

    width: int

    def submit(self, resolved: Resolved, task: str) -> "Future[dict[str, Any]]": ...

    def renew(self) -> bool:
        """Replace workers that died; False where that is not ours to do."""

    def close(self) -> None:
        """Drop what is not finished."""


def solve(resolved: Resolved, task: str) -> dict[str, Any]:
    """A point's row: its status, the reason where there is no answer, and its figures."""
    try:
        if task == "plan":
            document, _ = plan(resolved, lambda number, run: None)
            if document["interrupted"]:
                raise Interrupted
            return {"status": "ok"} | figures.of(task, document["candidates"][0])
        summary = run_whole(resolved).summary
    except Infeasible as error:
        return {"status": "infeasible", "reason": error.message}
    except ScenarioError as error:
        return {"status": "failed", "reason": reason(error)}
    if not summary["saturated"]:
        return {"status": "ok"} | figures.of(task, summary)
    growth = f"no steady state: the backlog grows by {summary['backlog_growth_per_s']:.3g} requests/s"
    return {"status": "saturated", "reason": growth} | figures.of(task, summary)


def reason(error: ScenarioError) -> str:
    """What is wrong, by key: a point has no file of its own."""
    return "; ".join(str(replace(problem, path=None)) for problem in error.problems)


class Given:
    """An executor that somebody else made and will close."""

    width = AHEAD

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._asked: list[Future[dict[str, Any]]] = []

    def submit(self, resolved: Resolved, task: str) -> "Future[dict[str, Any]]":
        self._asked.append(self._executor.submit(solve, resolved, task))
        return self._asked[-1]

    def renew(self) -> bool:
        return False

    def close(self) -> None:
        for future in self._asked:
            future.cancel()


class Processes:
    """Processes of our own, each of which ends when this one does, however that comes."""

    def __init__(self, jobs: int) -> None:
        self.width = jobs
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        watched, self._alive = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.width, context, _begin, (watched,))

    def submit(self, resolved: Resolved, task: str) -> "Future[dict[str, Any]]":
        return self._pool.submit(solve, resolved, task)

    def renew(self) -> bool:
        self.close()
        self._start()
        return True

    def close(self) -> None:
        self._alive.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(alive: Connection) -> None:
    """In a new worker: leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(alive,), daemon=True).start()


def _end_with_parent(alive: Connection) -> None:
    try:
        alive.recv_bytes()
    except EOFError:
        os._exit(1)
