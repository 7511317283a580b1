"""The run directory: written whole or not at all."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from capsim.errors import ScenarioError
from capsim.experiment import Run

FILES = ("scenario.lock.yaml", "summary.json", "requests.parquet", "segments.parquet")


def check_target(directory: Path) -> None:
    """Refuse a directory that is not empty and was not written by capsim, before any work is spent on it.

    Raises
    ------
    ScenarioError
        The place is taken.
    """
    if directory.exists() and not directory.is_dir():
        raise ScenarioError.one("is a file: give a directory", path=directory, key="--out")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "summary.json").is_file():
        raise ScenarioError.one("is not empty and holds no run: give another directory", path=directory, key="--out")


def save(run: Run, directory: Path) -> None:
    """Write a run's resolved scenario, summary and two tables; an earlier run in that place is replaced."""
    check_target(directory)
    tables = {
        name: pd.concat(
            [getattr(r, name).assign(replication=index) for index, r in enumerate(run.replications)], ignore_index=True
        )
        for name in ("requests", "segments")
    }

    def fill(place: Path) -> None:
        (place / "scenario.lock.yaml").write_text(yaml.safe_dump(run.summary["scenario"], sort_keys=False))
        (place / "summary.json").write_text(to_json(run.summary))
        for name, table in tables.items():
            table.to_parquet(place / f"{name}.parquet", index=False)

    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        fill(fresh)
        if directory.exists():
            shutil.rmtree(directory)
        fresh.chmod(0o755)
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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
