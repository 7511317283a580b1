"""Running a sweep: only what is missing, every finished point kept at once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from capsim.progress import ProgressFile, State
from capsim.sweep.executors import cores, processes
from capsim.sweep.point import Row, hash_of, run_point
from capsim.sweep.spec import Sweep
from capsim.sweep.store import locked_directory, read_point, write_point
from capsim.sweep.table import table_of, write_table

MOST_DEATHS = 2
"""How often a process may die over a point before the point is given up."""


class Progress(NamedTuple):
    """How far a sweep is: points in all, finished before this start, finished since, and failed ones of all these."""

    points: int
    before: int
    done: int
    failed: int


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
        """Points that are missing, again with fresh processes where one died."""
        deaths: Counter[int] = Counter()
        while missing := self._missing:
            if self.executor is not None:
                self._round(self.executor, missing)
                return
            pool = processes(self.jobs)
            try:
                self._round(pool, missing)
            except BrokenProcessPool:
                deaths.update(self._missing[: self.jobs])  # points are taken in order: it was over one of these
                for index in [index for index, count in deaths.items() if count >= MOST_DEATHS]:
                    self._keep(index, {"status": "failed", "reason": "its process died twice: out of memory?"})
            except BaseException:
                for process in active_children():
                    process.terminate()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _round(self, executor: Executor, missing: list[int]) -> None:
        task, scenario = self.sweep.task, self.sweep.scenario
        futures = {executor.submit(run_point, task, scenario, self.points[index]): index for index in missing}
        try:
            for future in as_completed(futures):
                self._take(futures[future], future)
        finally:
            for future in futures:
                future.cancel()

    def _take(self, index: int, future: "Future[Row]") -> None:
        """A point's row, on disk at once. What came to nothing by no fault of its own is tried again next time."""
        try:
            row = future.result()
        except BrokenProcessPool:
            raise
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
        self.file.tell(done, len(self.points) - self.before, state=state, live=live)
        self.on_point(Progress(len(self.points), self.before, done, failed))
