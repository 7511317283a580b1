"""A job as it runs: how far, how well so far, and a button to stop it."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from capsim import jobs, units
from capsim.glossary import METRICS


def watch(name: str, also: Callable[[], None] = lambda: None) -> None:
    """Follow a job until it ends, then draw the page again; ``also`` draws what is known by now."""

    @st.fragment(run_every="1s")
    def follow() -> None:
        status = jobs.status(name)
        if status is None or not status.alive:
            st.rerun()
        else:
            _show(name, status)
            also()

    follow()


def _show(name: str, status: jobs.Status) -> None:
    line, button = st.columns([5, 1], vertical_alignment="center")
    if status.state == "queued":
        line.info(f"Waiting for its turn: {jobs.AT_ONCE} simulations run at once.", icon=":material/hourglass_top:")
    else:
        done, total = status.progress["done"], status.progress["total"]
        line.progress(min(1.0, done / total) if total else 0.0, _told(status.progress))
    if button.button("Cancel", key=f"cancel-{name}", help="What is known by then is kept."):
        jobs.cancel(name)


def _told(progress: dict[str, Any]) -> str:
    live, total = progress["live"], progress["total"]
    parts = [f"{progress['done']:g} of {total:g}" if total else f"{progress['done']:g} trials"]
    if live.get("number"):
        parts.append(f"at {live['number']:,}")
    if live.get("goodput") is not None:
        parts.append(f"goodput {live['goodput']:.1%}")
    for latency in ("ttft_s", "tpot_s"):
        if live.get(f"{latency}_p95") is not None:
            parts.append(f"{METRICS[latency].label} p95 {units.seconds(live[f'{latency}_p95'])}")
    if progress["eta_s"] is not None:
        parts.append(f"about {units.seconds(round(progress['eta_s']))} left")
    return ", ".join(parts)
