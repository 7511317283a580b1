"""The row of figures that a planner came for, for each node type: estimated at once, simulated when asked."""

from typing import Any

import streamlit as st

from capsim import units
from capsim.cli.tables import bracket_text
from capsim.glossary import METRICS
from capsim.pages.parts.figures import difference, seconds, usd

LIMIT = METRICS["binds"].definition
SHOWN = 3
"""Node types with a row of their own; the others are in the table."""


def answers(estimates: list[dict[str, Any]], simulated: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    """``simulated`` are candidates of a plan by their key."""
    for estimate in estimates[:SHOWN]:
        with st.container(border=True):
            _answer(estimate, simulated.get(key_of(estimate)))


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["node"], row["kv_format"], row["parallelism"], row["max_num_seqs"]


def by_key(document: dict[str, Any] | None) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {} if document is None else {key_of(one): one for one in document["candidates"]}


def _answer(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    basis = "estimated" if found is None else "simulated"
    what = f"**{estimate['node']}**, {estimate['parallelism']}, {estimate['kv_format']} KV"
    st.markdown(f"{what} :gray-badge[{basis}] :gray-badge[step times {estimate['basis']['step_time']['basis']}]")
    limited = estimate["limited_by"] if found is None else found["binds"]
    places = st.columns(6)
    for place, draw in zip(places, (_sessions, _nodes, _ttft, _tpot, _monthly), strict=False):
        with place:
            draw(estimate, found)
    with places[-1]:
        _metric("Limited by", limited, "by closed form" if found is None else "by simulation", None, LIMIT)


def _sessions(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    if found is None:
        _metric("Sessions a node", f"{estimate['sessions']:,}", "open at once, the SLO being kept")
        return
    passing, failing = found["sessions"]["attached"]
    low, high = found["model_error"]["sessions"]
    ends = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
    gap = difference(passing, estimate["sessions"], "{:,}".format)
    _metric("Sessions a node", f"{passing:,}", f"{failing:,} miss the SLO; {ends} with model error", gap)


def _nodes(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    row = estimate if found is None else found
    if row["nodes"] is None:
        _metric("Nodes", "1", "give users to size a fleet")
        return
    gap = None if found is None else difference(found["nodes"], estimate["nodes"], "{:,}".format)
    _metric("Nodes", f"{row['nodes']:,}", "one of which may be down" if estimate["nodes"] else "for the load", gap)


def _ttft(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    _latency("ttft_s", estimate, found)


def _tpot(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    _latency("tpot_s", estimate, found)


def _latency(latency: str, estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    guess = estimate["latency"].get(latency, {}).get("p95")
    row = None if found is None else found["latency"][latency]
    p95 = guess if row is None else row["p95"]
    interval = row and row.get("p95_ci95")
    note = f"95 % interval {seconds(interval[0])} to {seconds(interval[1])}" if interval else "at that limit"
    error = None if found is None else found["model_error"].get(latency)
    note += f"; {bracket_text(error['p95'])} with model error" if error and error["p95"] else ""
    gap = difference(p95, guess, units.seconds) if row else None
    _metric(f"{METRICS[latency].label} p95", seconds(p95), note, gap, METRICS[latency].definition)


def _monthly(estimate: dict[str, Any], found: dict[str, Any] | None) -> None:
    row = estimate if found is None else found
    each = row["cost"]["usd_per_million_output_tokens"] if found else estimate["usd_per_million_output_tokens"]
    if row["monthly_usd"] is None:
        _metric("A month", "unknown", "price unknown: the catalog has none of this node")
        return
    note = "" if each is None else f"{usd(each)} a million output tokens"
    gap = difference(row["monthly_usd"], estimate["monthly_usd"], units.usd) if found else None
    _metric("A month", usd(row["monthly_usd"]), note, gap, "A month has 730 hours.")


def _metric(label: str, value: str, note: str, gap: str | None = None, definition: str | None = None) -> None:
    st.metric(label, value, gap, delta_color="off", delta_arrow="off", help=definition)
    st.caption(note)
