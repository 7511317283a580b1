"""The columns of a sweep's table: which figure of a run's summary or of a plan each of them is."""

from typing import Any

from capsim.glossary import LATENCIES

STATUSES = ("ok", "saturated", "infeasible", "failed", "pending")
Paths = dict[str, tuple[str | int, ...]]


def _latency_paths() -> Paths:
    named: Paths = {}
    for latency in LATENCIES:
        stem = latency.removesuffix("_s")
        named |= {f"{stem}_{figure}_s": (latency, figure) for figure in ("mean", "p50", "p95", "p99")}
        named |= {f"{stem}_p95_{end}_s": (latency, "p95_ci95", place) for place, end in enumerate(("low", "high"))}
    return named


RUN: Paths = {
    "run_id": ("run", "id"),
    "basis": ("basis", "step_time", "basis"),
    "goodput": ("goodput",), "goodput_low": ("goodput_ci95", 0), "goodput_high": ("goodput_ci95", 1),
    "slo_passed": ("slo", "passed"),
    **_latency_paths(),
    "requests_per_s": ("throughput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "in_flight": ("in_flight",),
    "utilisation": ("utilisation",), "busy_fraction": ("busy_fraction",),
    "kv_mean_utilisation": ("kv", "mean_utilisation"), "kv_hit_rate": ("kv", "hit_rate"),
    "preemptions": ("preemptions",),
    "monthly_usd": ("cost", "monthly_usd"),
    "usd_per_million_output_tokens": ("cost", "usd_per_million_output_tokens"),
}  # fmt: skip
PLAN: Paths = {
    "node_type": ("node",), "basis": ("basis", "step_time", "basis"),
    "sessions": ("sessions", "attached", 0), "sessions_failing": ("sessions", "attached", 1),
    "cached": ("sessions", "cached", 0), "in_flight": ("sessions", "in_flight", 0),
    "estimated_sessions": ("estimate", "sessions"), "decided": ("decided",), "binds": ("binds",), "nodes": ("nodes",),
    "goodput": ("goodput", 0), "goodput_low": ("goodput_ci95", 0, 0), "goodput_high": ("goodput_ci95", 0, 1),
    **{name: ("latency", *path) for name, path in _latency_paths().items()},
    "requests_per_s": ("throughput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "utilisation": ("utilisation",), "busy_fraction": ("busy_fraction",),
    "kv_mean_utilisation": ("kv", "mean_utilisation"), "kv_hit_rate": ("kv", "hit_rate"),
    "monthly_usd": ("monthly_usd",),
    "usd_per_million_output_tokens": ("cost", "usd_per_million_output_tokens"),
}  # fmt: skip
DERIVED = "tokens_per_s_per_user"
TEXT = {"run_id", "basis", "node_type", "binds"}
FLAGS = {"slo_passed", "decided"}
PATHS = {"run": RUN, "plan": PLAN}


def columns(task: str) -> tuple[str, ...]:
    """The figures of every point of a sweep, in order."""
    return (*PATHS[task], DERIVED)


def of(task: str, document: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run's summary, or of one plan's candidate; what is not known is None."""
    found = {name: _at(document, path) for name, path in PATHS[task].items()}
    tpot_s = found["tpot_mean_s"]
    return {**found, DERIVED: 1 / tpot_s if tpot_s else None}


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        if document is None:
            return None
        document = document[part]
    return None if document != document else document
