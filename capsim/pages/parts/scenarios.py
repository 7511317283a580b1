"""The scenarios that a visitor may start from: those that ship, and those that were uploaded."""

import hashlib
import re
import shlex
from contextlib import suppress
from functools import cache
from pathlib import Path

import streamlit as st

import capsim
from capsim.errors import Infeasible, ScenarioError
from capsim.jobs import runs_directory
from capsim.scenario import resolve
from capsim.source import load, override, text_of

SHIPPED = Path(capsim.__file__).parents[1] / "scenarios"
FIRST = "chat-llama70b-h100"
UPLOADED = "uploaded-"
MOST_BYTES = 200_000
_KEY = re.compile(rf"{UPLOADED}[0-9a-f]{{12}}")


def keys() -> list[str]:
    """Of all that there are, in the order in which they are offered."""
    shipped = shipped_with("model")
    return [FIRST, *(key for key in shipped if key != FIRST), *sorted(path.stem for path in _folder().glob("*.yaml"))]


@cache
def shipped_with(word: str) -> list[str]:
    """Files that ship and have this key: of a scenario ``model``, of a stack ``levers``."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml") if word in load(path).values)


def path_of(key: str) -> Path:
    return (_folder() if _KEY.fullmatch(key) else SHIPPED) / f"{key}.yaml"


def command(verb: str, key: str, overrides: tuple[str, ...]) -> str:
    """The command line that prints the same; of what was uploaded, with the scenario downloaded again."""
    if _KEY.fullmatch(key):
        return f"capsim {verb} scenario.yaml"
    sets = "".join(f" \\\n  --set {shlex.quote(assignment)}" for assignment in overrides)
    return f"capsim {verb} scenarios/{key}.yaml{sets}"


@st.cache_data(max_entries=64)
def about(key: str) -> str:
    values = load(path_of(key)).values
    return str(values.get("description") or values.get("name") or "")


@st.cache_data(max_entries=256)
def text(key: str, overrides: tuple[str, ...]) -> str:
    """A scenario file that needs no overrides."""
    return merged(path_of(key), overrides)


def merged(path: Path, overrides: tuple[str, ...]) -> str:
    source = load(path)
    for assignment in overrides:
        override(source, assignment)
    return text_of(source)


def upload(content: bytes) -> str:
    """Keep a visitor's scenario and give its key.

    Raises
    ------
    ScenarioError
        Mistakes in it; and of one that is too large, or names files, which would be this machine's.
    """
    if len(content) > MOST_BYTES:
        raise ScenarioError.one(f"larger than {MOST_BYTES:,} bytes: not a scenario", path="scenario.yaml")
    key = UPLOADED + hashlib.sha256(content).hexdigest()[:12]
    path = _folder() / f"{key}.yaml"
    fresh = path.with_suffix(".new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_bytes(content)
    try:
        with suppress(Infeasible):  # the page says so, and what would help
            resolve(fresh, own_files=False)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return key


def unnamed(message: str) -> str:
    """A message without the place where this machine keeps scenarios."""
    return re.sub(r"\S*/(?=[\w.-]+\.(yaml|new))", "", message)


def _folder() -> Path:
    return runs_directory() / ".scenarios"
