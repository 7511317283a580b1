"""What is known, and on what basis: every entry, values of one's own for this visit, and the words."""

from datetime import date
from typing import Any

import streamlit as st
import yaml

from capsim.catalog import SPECS, Catalog
from capsim.catalog.listing import PRICED, rows
from capsim.errors import ScenarioError
from capsim.glossary import METRICS
from capsim.pages.parts import own_facts
from capsim.pages.parts.figures import columns
from capsim.pages.parts.refusal import mistaken

GLOSSARY = "glossary"


def page() -> None:
    kind = st.selectbox("What", [*SPECS, GLOSSARY], key="kind", bind="query-params")
    if kind == GLOSSARY:
        entries = [{"metric": m.label, "unit": m.unit, "definition": m.definition} for m in METRICS.values()]
        st.dataframe(entries, hide_index=True)
        return
    catalog = own_facts.catalog()
    listed(kind, catalog)
    one(kind, catalog)


def listed(kind: str, catalog: Catalog) -> None:
    """All entries of a kind, with what each rests on."""
    listing = rows(kind, catalog, date.today())
    frame = columns(listing)[1] | {"source": [catalog.provenance[kind, key].source for key in getattr(catalog, kind)]}
    stale = [row for row in listing if kind in PRICED and row[-1].endswith("stale")]
    if stale:
        st.warning(f"{len(stale)} prices are more than 180 days old: marked stale.", icon=":material/schedule:")
    st.dataframe(frame, hide_index=True)


def one(kind: str, catalog: Catalog) -> None:
    """One entry as a file has it, to change for this visit and to take along."""
    key = st.selectbox("Entry", list(getattr(catalog, kind)), key=f"entry-{kind}")
    text = st.text_area("As a catalog file has it", entry_text(catalog, kind, key), 320, 20_000, f"text-{kind}-{key}")
    st.caption("Change a value and its basis, source and date; it holds for your visit, on every page.")
    if st.button("Use it for this visit", icon=":material/edit:"):
        try:
            own_facts.add(kind, text)
        except ScenarioError as error:
            mistaken(error)
        else:
            st.rerun()
    if (own := own_facts.text()) is not None:
        st.success("Entries of your own hold for this visit.", icon=":material/check:")
        with st.container(horizontal=True):
            st.download_button("catalog.yaml", own, "catalog.yaml", "application/yaml", on_click="ignore")
            st.button("Forget them", on_click=own_facts.forget, icon=":material/undo:")


def entry_text(catalog: Catalog, kind: str, key: str) -> str:
    values: dict[str, Any] = catalog.get(kind, key).model_dump(mode="json", exclude_none=True)
    provenance = catalog.provenance[kind, key].model_dump(mode="json")
    return yaml.safe_dump({key: {**values, "provenance": provenance}}, sort_keys=False, allow_unicode=True)


page()
