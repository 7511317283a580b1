"""Catalog entries that a visitor changed: they hold for the visit, and can be taken along as a file."""

import hashlib
from pathlib import Path

import streamlit as st
import yaml

from capsim.catalog import Catalog, load_catalog
from capsim.errors import ScenarioError
from capsim.jobs import runs_directory

MOST_BYTES = 200_000


def catalog() -> Catalog:
    """The catalog with the visitor's entries in it."""
    place = file()
    return load_catalog([] if place is None else [place])


def file() -> Path | None:
    """Where the visitor's entries are; None without any."""
    found: Path | None = st.session_state.get("own_facts")
    return found


def text() -> str | None:
    place = file()
    return None if place is None else place.read_text()


def add(kind: str, entry: str) -> None:
    """Take one entry, in the form ``capsim catalog show`` prints it, into those of the visit.

    Raises
    ------
    ScenarioError
        Not YAML, or not such an entry: every mistake, with its line.
    """
    own = {} if (known := text()) is None else yaml.safe_load(known)
    fresh = _write(f"{kind}:\n" + "".join(f"  {line}\n" for line in entry.splitlines()))
    load_catalog([fresh])
    added = yaml.safe_load(fresh.read_text())
    own[kind] = own.get(kind, {}) | added[kind]
    st.session_state["own_facts"] = _write(yaml.safe_dump(own, sort_keys=False, allow_unicode=True))


def forget() -> None:
    st.session_state.pop("own_facts", None)


def _write(content: str) -> Path:
    if len(content) > MOST_BYTES:
        raise ScenarioError.one(f"larger than {MOST_BYTES:,} bytes: not entries of a catalog", path="catalog.yaml")
    folder = runs_directory() / ".catalogs" / hashlib.sha256(content.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalog.yaml").write_text(content)
    return folder / "catalog.yaml"
