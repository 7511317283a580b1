"""What stands behind an answer: curves, memory, cost, what would change it, and who cannot serve."""

import re
from typing import Any

import streamlit as st

from capsim import units
from capsim.charts.plan import capacity_curve, memory_bar
from capsim.cli.tables import Rows, basis_rows, cost_rows
from capsim.memory import MemoryBudget
from capsim.pages.parts.figures import columns, curve_rows

TARGETS = ("ttft_s", "tpot_s")
OUTSIDE = ("not measured", "carried over", "beyond", "no steady state")
"""Words of a warning that the answer lies outside of what was measured."""


def table(rows: Rows, title: str = "") -> None:
    """A table of text as the command line draws it; nothing where there are no rows."""
    if not rows:
        return
    if title:
        st.markdown(f"**{title}**")
    headed, cells = columns([[_as_written(cell) for cell in row] for row in rows])
    st.table(cells, hide_index=True, hide_header=not headed, border="horizontal")


def _as_written(cell: str) -> str:
    """What tables would take for markup, such as two prices for a formula or a leading + for a list."""
    return re.sub(r"[$*`~\[\]<]|^[-+#](?= )", r"\\\g<0>", cell)


def chart(drawn: Any, key: str, height: int | None = 380) -> None:
    """A chart as high as its page wants it, axes and legend included."""
    st.altair_chart(drawn, key=key, height=height or "content")


def curves(document: dict[str, Any]) -> None:
    rows = curve_rows(document)
    if not rows:
        return
    slo = document["scenario"]["scenario"].get("slo", {})
    for place, latency in zip(st.columns(2), TARGETS, strict=True):
        with place:
            chart(capacity_curve(rows, latency, slo.get(latency)), f"curve-{latency}")
    st.caption(
        "Each point is simulated; the band is the 95 % interval over replications, the diamond the last number "
        "of sessions inside the SLO."
    )


def memory(budget: MemoryBudget, kv_share: float) -> None:
    """Where a device's memory goes, and the sum behind it."""
    parts = budget.parts(kv_share)
    chart(memory_bar(parts), "memory", 170)
    with st.popover("How it adds up", icon=":material/function:"):
        st.markdown("KV pool = usable memory − weights − runtime reserve − activations, on the fullest device")
        table([[name, units.bytes_(size)] for name, size in parts.items()])
        st.caption(
            f"{budget.blocks:,} KV blocks of {budget.block_tokens} tokens, {units.bytes_(budget.block_bytes)} each: "
            f"{budget.capacity_tokens:,} tokens"
        )


def costs(cost: dict[str, Any]) -> None:
    table(cost_rows(cost))
    st.caption("A month has 730 hours.")


def rests_on(basis: dict[str, Any]) -> None:
    table(basis_rows(basis))


def notes(warnings: list[str]) -> None:
    """What a reader should know; amber where an answer lies outside of what was measured."""
    for warning in warnings:
        if any(words in warning for words in OUTSIDE):
            st.warning(warning, icon=":material/warning:")
        else:
            st.caption(warning)
