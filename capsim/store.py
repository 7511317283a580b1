"""The run directory: written whole or not at all, and read again."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from capsim.errors import ScenarioError, refusals
from capsim.experiment import SCHEMA_VERSION, Replication, Run
from capsim.glossary import LATENCIES
from capsim.json_text import to_json
from capsim.progress import FILE as PROGRESS
from capsim.sim.records import write_tables

OURS = ("summary.json", "plan.json")
PERCENTILES = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Saved:
    """A run that was written down, or could be: its summary, and a row a replication of what was measured in it.

    ``replications`` has ``replication``, ``warmup_requests``, ``start_s`` and ``end_s`` of what was measured,
    ``goodput``, throughput by kind, and ``<latency>_<percentile>``. ``place`` is its directory, None where it has none.
    """

    summary: dict[str, Any]
    replications: pd.DataFrame
    place: Path | None = None

    def requests(self) -> pd.DataFrame:
        """Measured requests: after warm-up, retries of what was first asked for in it left out."""
        table = self._table("requests")
        first = self.replications.set_index("replication")["warmup_requests"]
        warmup = table["replication"].map(first)
        return table[(table["request"] >= warmup) & (table["ask"] >= warmup)]

    def segments(self) -> pd.DataFrame:
        return self._table("segments")

    def _table(self, name: str) -> pd.DataFrame:
        assert self.place is not None
        return pd.read_parquet(self.place / f"{name}.parquet")


def of_run(run: Run) -> Saved:
    """A run as it is written down."""
    rows = [{"replication": i, **_row(one)} for i, one in enumerate(run.replications)]
    return Saved(run.summary, pd.DataFrame.from_records(rows))


def load(directory: Path) -> Saved:
    """Read a run directory; that of an earlier run where the process that was to replace it was killed half way.

    Raises
    ------
    ScenarioError
        It holds no run, or one that cannot be read.
    """
    try:
        with refusals("read", directory):
            place = directory if directory.exists() or not _aside(directory).is_dir() else _aside(directory)
            summary, rows = _read(place)
    except ValueError as error:
        raise ScenarioError.one(f"cannot be read: {error}", path=directory) from error
    if summary.get("schema_version") != SCHEMA_VERSION:
        raise ScenarioError.one("is of another version of capsim: run it again", path=directory)
    return Saved(summary, rows, place)


def _read(directory: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    try:
        return json.loads((directory / "summary.json").read_text()), pd.read_parquet(directory / "replications.parquet")
    except FileNotFoundError as error:
        hint = "capsim run SCENARIO --out DIR writes one"
        raise ScenarioError.one("holds no run", path=directory, hint=hint) from error


def _row(one: Replication) -> dict[str, Any]:
    latencies = {f"{name}_{key}": one.latencies[name][key] for name in LATENCIES for key in PERCENTILES}
    start_s, end_s = one.window_s
    window = {"warmup_requests": one.warmup, "start_s": start_s, "end_s": end_s}
    return {**window, "goodput": one.good_share, **one.throughput, **latencies}


def check_target(directory: Path) -> None:
    """Refuse a place that is taken by something else or cannot be written, before any work is spent on it, and put back
    what a killed process left beside it.

    Raises
    ------
    ScenarioError
        The place is taken, or the system refuses to write there.
    """
    with refusals("read", f"--out {directory}"):
        _recover(directory)
        if directory.exists() and not directory.is_dir():
            raise ScenarioError.one("is a file: give a directory", path=f"--out {directory}")
        if directory.is_mount() or directory.resolve() == Path.cwd():
            raise ScenarioError.one("cannot be replaced: give a directory inside it", path=f"--out {directory}")
        there = [file.name for file in directory.iterdir()] if directory.is_dir() else []
    ours = any(name in there for name in OURS) or all(PROGRESS in name for name in there)  # of a run that was killed
    if not ours:
        raise ScenarioError.one("is not empty and holds no run: give another directory", path=f"--out {directory}")
    _fresh(directory).rmdir()


def save(run: Run, directory: Path) -> None:
    """Write a run's resolved scenario, summary and two tables; an earlier run in that place is replaced."""
    _write_whole(directory, lambda place: _fill(place, run))


def save_plan(document: dict[str, Any], at_limit: Run | None, directory: Path) -> None:
    """Write a plan's document and, where there is one, the run at the last passing number of sessions."""

    def fill(place: Path) -> None:
        (place / "plan.json").write_text(to_json(document))
        if at_limit is not None:
            _fill(place, at_limit)

    _write_whole(directory, fill)


def _fill(place: Path, run: Run) -> None:
    (place / "scenario.lock.yaml").write_text(yaml.safe_dump(run.summary["scenario"], sort_keys=False))
    (place / "summary.json").write_text(to_json(run.summary))
    of_run(run).replications.to_parquet(place / "replications.parquet", index=False)
    for name in ("requests", "segments"):
        write_tables([getattr(r.records, name) for r in run.replications], place / f"{name}.parquet")


def _write_whole(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fill a fresh directory and put it in place; an earlier one stands aside until it is. Only one that writes puts it
    back, as one that reads does not know whether somebody writes.
    """
    check_target(directory)
    fresh = _fresh(directory)
    try:
        with refusals("written", f"--out {directory}"):
            fill(fresh)
            fresh.chmod(0o755)
            if directory.exists():
                directory.rename(_aside(directory))
            fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        _recover(directory)


def _recover(directory: Path) -> None:
    """Put back a result that stands aside with nothing in its place, as where a process was killed between the two
    renames; clear it away where the new one is there.
    """
    aside = _aside(directory)
    if directory.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        aside.rename(directory)


def _aside(directory: Path) -> Path:
    return directory.parent / f".{directory.name}-before"


def _fresh(directory: Path) -> Path:
    """An empty directory beside the one to write."""
    with refusals("written", f"--out {directory}"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
