"""Results that pages show: of jobs as they end, and the one that ships, so that the first screen is full."""

import json
from pathlib import Path
from typing import Any

import streamlit as st

from capsim import jobs
from capsim.pages.parts.inputs import Asked

SAVED = Path(__file__).parents[1] / "saved"


def plan_job(asked: Asked, title: str) -> jobs.Job:
    return jobs.Job("plan", {"scenario.yaml": asked.text}, title)


def plan_document(asked: Asked, name: str) -> dict[str, Any] | None:
    """The plan that was simulated for this question; of an untouched scenario the one that ships."""
    found = document(name, "plan.json")
    saved = SAVED / f"{asked.scenario}.plan.json"
    if found is None and not asked.overrides and saved.is_file():
        return _read(saved, 0)
    return found


def document(name: str, file: str) -> dict[str, Any] | None:
    """What a job wrote; None where it has written nothing."""
    path = jobs.result_directory(name) / file
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _read(path: Path, changed_ns: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
