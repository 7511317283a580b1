"""The run directory: written whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from capsim.errors import ScenarioError
from capsim.experiment import Run
from capsim.progress import FILE as PROGRESS
from capsim.sim.records import write_tables

OURS = ("summary.json", "plan.json")


def check_target(directory: Path) -> None:
    """Refuse a place that is taken by something else or cannot be written, before any work is spent on it.

    Raises
    ------
    ScenarioError
        The place is taken, or the system refuses to write there.
    """
    if directory.exists() and not directory.is_dir():
        raise ScenarioError.one("is a file: give a directory", path=f"--out {directory}")
    ours = any((directory / name).is_file() for name in (*OURS, PROGRESS))
    if directory.is_dir() and any(directory.iterdir()) and not ours:
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
    for name in ("requests", "segments"):
        write_tables([getattr(r.records, name) for r in run.replications], place / f"{name}.parquet")


def _write_whole(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fill a fresh directory and put it in place in one rename."""
    check_target(directory)
    fresh = _fresh(directory)
    try:
        fill(fresh)
        fresh.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fresh(directory: Path) -> Path:
    """An empty directory beside the one to write."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise ScenarioError.one(f"cannot be written: {error.strerror}", path=f"--out {directory}") from error


def to_json(document: dict[str, Any]) -> str:
    """JSON with NaN as null: what is not known is not a number."""
    return json.dumps(_without_nan(document), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and value != value:
        return None
    return value
