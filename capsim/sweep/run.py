"""Runs a sweep: what is already in its directory is kept, the rest is computed, in whatever order workers finish."""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from capsim.errors import Infeasible, ScenarioError
from capsim.progress import ProgressFile, State
from capsim.scenario import Resolved, resolve
from capsim.scenario.lock import locked
from capsim.sweep.results import Results, Row, as_table, own, writing
from capsim.sweep.spec import Point, Sweep
from capsim.sweep.workers import Crew, Given, Processes, reason

TABLE_EVERY_S = 5.0
FAILED = ("infeasible", "failed")
Ended = Callable[[int, int, float | None], None]
"""Told (points that have a row, all points, seconds left at the pace so far or None)."""


def run_sweep(
    sweep: Sweep,
    directory: Path | str,
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    on_point: Ended = lambda done, total, left_s: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> pd.DataFrame:
    """The table of all points, in their order; ``directory`` keeps it, and each finished point as soon as it is.

    Parameters
    ----------
    jobs
        Processes to use here, as many as there are cores without it.
    executor
        Compute there instead: any ``concurrent.futures`` executor.
    on_note
        Told what a user should know of, such as a damaged file.

    Raises
    ------
    ScenarioError
        The directory is in use, holds something else, or cannot be written.
    KeyboardInterrupt
        Ctrl-C; what is finished is in the directory.
    """
    directory = Path(directory)
    with own(directory):
        crew: Crew = Processes(jobs or cores()) if executor is None else Given(executor)
        at_work = _Sweeping(sweep, Results(directory), crew, on_point, on_note, ProgressFile(directory))
        state: State = "interrupted"
        try:
            at_work.go()
            state = "done"
        except ScenarioError:
            state = "failed"
            raise
        finally:
            crew.close()
            at_work.stop(state)
    return as_table(sweep, at_work.rows).to_pandas()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Job:
    """A result that some points wait for: those after the first resolve to the same scenario."""

    key: str
    points: list[int]
    resolved: Resolved


@dataclass
class _Sweeping:
    sweep: Sweep
    results: Results
    crew: Crew
    on_point: Ended
    on_note: Callable[[str], None]
    progress: ProgressFile
    rows: dict[int, Row] = field(default_factory=dict)
    _kept: int = 0
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _saved_s: float = field(default_factory=time.monotonic)
    _running: dict["Future[Row]", _Job] = field(default_factory=dict)
    _suspects: deque[_Job] = field(default_factory=deque)

    def go(self) -> None:
        self._tell("running")
        waiting = deque(self.sweep.points)
        while waiting or self._running or self._suspects:
            while waiting and not self._suspects and len(self._running) < self.crew.width:
                self._look_at(waiting.popleft())
            if self._suspects and not self._running:
                self._submit(self._suspects[0])
            if self._running:
                self._collect()

    def _look_at(self, point: Point) -> None:
        """Take a point's row from the directory, or set somebody to work."""
        try:
            resolved = resolve(self.sweep.scenario, point.overrides, self.sweep.folder)
        except ScenarioError as error:
            return self._end([point.index], {"status": "failed", "reason": reason(error)})
        except Infeasible as error:
            return self._end([point.index], {"status": "infeasible", "reason": error.message})
        key = _key(resolved, self.sweep.task)
        if key in self._jobs:
            return self._jobs[key].points.append(point.index)
        row = self._read(key, point)
        if row is not None:
            self._kept += 1
            return self._end([point.index], row)
        self._jobs[key] = _Job(key, [point.index], resolved)
        return self._submit(self._jobs[key])

    def _read(self, key: str, point: Point) -> Row | None:
        try:
            return self.results.read(key)
        except ValueError as error:
            self.on_note(f"{error}: point {point.index} is done again")
            return None

    def _submit(self, job: _Job) -> None:
        self._running[self.crew.submit(job.resolved, self.sweep.task)] = job

    def _collect(self) -> None:
        """Write down what has finished. After a worker's death those that were running are tried again, one by one."""
        done, _ = wait(self._running, return_when="FIRST_COMPLETED")
        if any(isinstance(future.exception(), BrokenExecutor) for future in done):
            done, _ = wait(self._running)
            self._after_a_death(done)
            return
        for future in done:
            self._finish(self._running.pop(future), future)

    def _after_a_death(self, ended: set["Future[Row]"]) -> None:
        alone = len(ended) == 1
        renewed = self.crew.renew()
        for future in ended:
            job = self._running.pop(future)
            if not isinstance(future.exception(), BrokenExecutor) or alone or not renewed:
                self._finish(job, future)
            elif job not in self._suspects:
                self._suspects.append(job)

    def _finish(self, job: _Job, future: "Future[Row]") -> None:
        """An answer is kept; what went wrong for reasons outside the scenario is tried again by a later start."""
        if job in self._suspects:
            self._suspects.remove(job)
        error = future.exception()
        if error is None:
            with writing(self.results.directory):
                self.results.write(job.key, future.result())
            self._end(job.points, future.result())
        else:
            self._end(job.points, {"status": "failed", "reason": _why(error)})
        del self._jobs[job.key]

    def _end(self, points: list[int], row: Row) -> None:
        self.rows |= dict.fromkeys(points, row)
        self._tell("running")
        if time.monotonic() - self._saved_s > TABLE_EVERY_S:
            self._save()

    def _tell(self, state: State) -> None:
        done, total = len(self.rows), len(self.sweep.points)
        failed = sum(row["status"] in FAILED for row in self.rows.values())
        with writing(self.results.directory):
            self.progress.tell(
                done, total, kept=self._kept, state=state, message=f"{failed} points failed" if failed else ""
            )
        self.on_point(done, total, self.progress.left_s)

    def _save(self) -> None:
        with writing(self.results.directory):
            self.results.write_table(self.sweep, self.rows)
        self._saved_s = time.monotonic()

    def stop(self, state: State) -> None:
        """Leave the table and the last word; a directory that cannot be written has had its error."""
        try:
            self._save()
            self._tell(state)
        except ScenarioError:
            if state != "failed":
                raise


def _key(resolved: Resolved, task: str) -> str:
    """What a point's result depends on: all that was resolved, the version in it, and the task."""
    return hashlib.sha256(json.dumps([task, locked(resolved)], sort_keys=True).encode()).hexdigest()[:32]


def _why(error: BaseException) -> str:
    if isinstance(error, BrokenExecutor):
        return "the worker died: out of memory, or killed"
    return f"{type(error).__name__}: {error}"
