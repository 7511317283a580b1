"""Running a sweep: only what is missing, every finished point kept at once."""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from capsim.progress import ProgressFile, State
from capsim.sweep.executors import cores, processes
from capsim.sweep.point import Row, hash_of, run_point
from capsim.sweep.spec import Sweep
from capsim.sweep.store import locked_directory, read_point, write_point
from capsim.sweep.table import table_of, write_table


class Progress(NamedTuple):
    """How far a sweep is: points in all, finished before this start, finished since, and failed ones of all these.

    ``left_s`` is what the rest takes at the pace of this start, None before its first point.
    """

    points: int
    before: int
    done: int
    failed: int
    left_s: float | None


def run_sweep(
    sweep: Sweep,
    directory: Path | str,
    executor: Executor | None = None,
    jobs: int | None = None,
    on_point: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> pd.DataFrame:
    """All points of a sweep, one row each; those that ``directory`` holds already are not run again.

    Parameters
    ----------
    executor
        Where points run: any ``concurrent.futures`` executor. Without one, ``jobs`` processes of this machine, as many
        as it has cores unless told.
    on_point, on_note
        Told how far it is after each point, and what a reader should know.

    Raises
    ------
    ScenarioError
        The directory cannot be written, is another's, or is full: finished points are kept.
    KeyboardInterrupt
        Ctrl-C: finished points are kept, and are in the table.
    """
    return _Running(sweep, Path(directory), executor, jobs or cores(), on_point, on_note).run()


class _Running:
    """One start of a sweep: the rows so far, and who is told of them."""

    def __init__(
        self,
        sweep: Sweep,
        directory: Path,
        executor: Executor | None,
        jobs: int,
        on_point: Callable[[Progress], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.sweep, self.points, self.directory = sweep, sweep.all_points, directory
        self.executor, self.jobs = executor, jobs
        self.on_point, self.on_note = on_point, on_note
        self.file = ProgressFile(directory)
        self.keys: list[str] = []
        self.rows: list[Row | None] = []
        self.before = 0

    def run(self) -> pd.DataFrame:
        with locked_directory(self.directory):
            self.keys = [hash_of(self.sweep.task, self.sweep.scenario, point) for point in self.points]
            self.rows = [self._finished(key) for key in self.keys]
            self.before = len(self.points) - len(self._missing)
            state: State = "failed"
            try:
                self._tell("running")
                self._rounds()
                state = "done"
            except KeyboardInterrupt:
                state = "interrupted"
                raise
            finally:
                frame = table_of(self.points, self.rows)
                write_table(self.directory, frame)
                self._tell(state)
        return frame

    @property
    def _missing(self) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row is None]

    def _finished(self, key: str) -> Row | None:
        try:
            return read_point(self.directory, key)
        except ValueError as error:
            self.on_note(f"point {key} is done again, as {error}")
            return None

    def _rounds(self) -> None:
        """Points that are missing. Where a process dies, those that were running are tried again, each by itself."""
        if self.executor is not None:
            self._round(self.executor, self._missing)
            self._give_up(self._missing)
        while missing := self._missing:
            self._in_processes(missing, self.jobs)
            for index in self._missing[: self.jobs]:  # points are taken in order: it died over one of these
                self._in_processes([index], 1)
                if self.rows[index] is None:
                    self._give_up([index])

    def _in_processes(self, indexes: list[int], jobs: int) -> None:
        with processes(jobs) as pool:
            self._round(pool, indexes)

    def _give_up(self, indexes: list[int]) -> None:
        for index in indexes:
            self._keep(index, {"status": "failed", "reason": "its process died: out of memory?"})

    def _round(self, executor: Executor, indexes: list[int]) -> None:
        """Run points, each once. Those over which the executor breaks, or that it drops, stay without a row."""
        task, scenario = self.sweep.task, self.sweep.scenario
        futures = {executor.submit(run_point, task, scenario, self.points[index]): index for index in indexes}
        try:
            for future in as_completed(futures):
                if not (future.cancelled() or isinstance(future.exception(), BrokenExecutor)):
                    self._take(futures[future], future)
        finally:
            for future in futures:
                future.cancel()

    def _take(self, index: int, future: "Future[Row]") -> None:
        """A point's row, on disk at once. What came to nothing by no fault of its own is tried again next time."""
        try:
            row = future.result()
        except Exception as error:  # a bug, or a worker that a cluster lost: the other points go on
            self._keep(index, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
            return
        write_point(self.directory, self.keys[index], row)
        self._keep(index, row)

    def _keep(self, index: int, row: Row) -> None:
        self.rows[index] = row
        self._tell("running")

    def _tell(self, state: State) -> None:
        known = [row for row in self.rows if row is not None]
        failed = sum(row["status"] == "failed" for row in known)
        done = len(known) - self.before
        live = {"points": len(self.points), "before": self.before, "failed": failed}
        left_s = self.file.tell(done, len(self.points) - self.before, state=state, live=live)
        self.on_point(Progress(len(self.points), self.before, done, failed, left_s))
