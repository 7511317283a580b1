"""Running a sweep: only what is missing, every finished point kept at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from itertools import islice
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import NamedTuple

import pandas as pd

from capsim.errors import ScenarioError
from capsim.progress import ProgressFile, State
from capsim.sweep.executors import cores, processes
from capsim.sweep.point import Row, hash_of, timed_point
from capsim.sweep.spec import Sweep
from capsim.sweep.store import locked_directory, read_point, write_point
from capsim.sweep.table import table_of, write_table


class Progress(NamedTuple):
    """How far a sweep is: points in all, finished before this start, finished since, and failed ones of all these.

    ``left_s`` is what the rest takes at the pace since the first point of this start began, None until one is finished.
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
        The directory cannot be written or read, is another's, or is full: finished points are kept.
    KeyboardInterrupt
        Ctrl-C: finished points are kept, and are in the table.
    """
    return _Running(sweep, Path(directory), executor, jobs or cores(), on_point, on_note).run()


class _Running:
    """One start of a sweep: the rows so far, and who is told of them.

    Points are taken in an order drawn by chance, so that those which are finished tell how long the others take, even
    where the grid goes from cheap points to dear ones. Each is looked for on disk when its turn comes: the first ones
    run while the others are looked for.
    """

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
        self.order = Random(0).sample(range(len(self.points)), len(self.points))
        self.keys: dict[int, str] = {}
        self.rows: list[Row | None] = [None] * len(self.points)
        self.before, self.began = 0, False

    def run(self) -> pd.DataFrame:
        with locked_directory(self.directory):
            try:
                self._tell("running")
                self._rounds()
            except KeyboardInterrupt:
                self._conclude("interrupted")
                raise
            except BaseException:
                with suppress(ScenarioError):  # what went wrong first is said
                    self._conclude("failed")
                raise
            return self._conclude("done")

    def _conclude(self, state: State) -> pd.DataFrame:
        """All that is known in one table, points that nobody has looked for by now too."""
        try:
            deque(self._missing(), maxlen=0)
            frame = table_of(self.points, self.rows)
            write_table(self.directory, frame)
        except ScenarioError:
            state = "failed"
            raise
        finally:
            self._tell(state)
        return frame

    def _missing(self) -> Iterator[int]:
        """Points without a row."""
        for index in self.order:
            if index not in self.keys:
                self._look_for(index)
            if self.rows[index] is None:
                yield index

    def _look_for(self, index: int) -> None:
        key = hash_of(self.sweep.task, self.sweep.scenario, self.points[index])
        try:
            self.rows[index] = read_point(self.directory, key)
        except ValueError as error:
            self.on_note(f"point {key} is done again, as {error}")
        self.keys[index] = key
        self.before += self.rows[index] is not None

    def _rounds(self) -> None:
        """Points that are missing. Where a process dies, those that were running are tried again, each by itself."""
        if self.executor is not None:
            self._round(self.executor, self._missing())
            self._give_up(self._missing(), "the executor broke before it was done")
        while next(self._missing(), None) is not None:
            self._in_processes(self._missing(), self.jobs)
            for index in list(islice(self._missing(), self.jobs)):  # they are taken in order: it died over one of these
                self._in_processes([index], 1)
                if self.rows[index] is None:
                    self._give_up([index], "its process died: out of memory?")

    def _in_processes(self, indexes: Iterable[int], jobs: int) -> None:
        with processes(jobs) as pool:
            self._round(pool, indexes)

    def _give_up(self, indexes: Iterable[int], reason: str) -> None:
        for index in indexes:
            self._keep(index, {"status": "failed", "reason": reason})

    def _round(self, executor: Executor, indexes: Iterable[int]) -> None:
        """Run points, each once. Those over which the executor breaks, or that it drops, stay without a row."""
        task, scenario = self.sweep.task, self.sweep.scenario
        futures: dict[Future[tuple[Row, float]], int] = {}
        ended: SimpleQueue[Future[tuple[Row, float]]] = SimpleQueue()
        try:
            for index in indexes:
                future = executor.submit(timed_point, task, scenario, self.points[index])
                futures[future] = index
                future.add_done_callback(ended.put)
                while not ended.empty():
                    self._take(futures, ended.get())
            while futures:
                self._take(futures, ended.get())
        except BrokenExecutor:  # it takes no more
            while futures:
                self._take(futures, ended.get())
        finally:
            for future in futures:
                future.cancel()

    def _take(self, futures: dict[Future[tuple[Row, float]], int], future: Future[tuple[Row, float]]) -> None:
        """A point's row, on disk at once. What came to nothing by no fault of its own is tried again next time."""
        index = futures.pop(future)
        if future.cancelled() or isinstance(future.exception(), BrokenExecutor):
            return
        try:
            row, seconds = future.result()
        except Exception as error:  # a bug, or a worker that a cluster lost: the other points go on
            self._keep(index, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
            return
        if not self.began:
            self.file.began(seconds)
            self.began = True
        write_point(self.directory, self.keys[index], row)
        self._keep(index, row)

    def _keep(self, index: int, row: Row) -> None:
        self.rows[index] = row
        self._tell("running")

    def _tell(self, state: State) -> None:
        """How far it is. Of points that were not looked for yet as many are expected to be missing as of the others."""
        known = [row for row in self.rows if row is not None]
        failed = sum(row["status"] == "failed" for row in known)
        done, points = len(known) - self.before, len(self.points)
        looked = len(self.keys)
        missing = points if not looked else ceil(points * (looked - self.before) / looked)
        live = {"points": points, "before": self.before, "failed": failed}
        left_s = self.file.tell(done, missing, state=state, live=live)
        self.on_point(Progress(points, self.before, done, failed, left_s))
