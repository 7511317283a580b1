"""Runs beside each other: what differs in their figures, their costs and their configurations."""

from typing import Any

import numpy as np

from capsim.glossary import LATENCIES
from capsim.model_error import separable
from capsim.scenario import Scenario
from capsim.stats import difference_interval
from capsim.store import Saved

FIGURES = (
    *(f"{name}_{key}" for name in LATENCIES for key in ("mean", "p95")),
    "goodput", "requests_per_s", "output_tokens_per_s",
)  # fmt: skip
Document = dict[str, Any]


def compare(base: Saved, others: list[Saved]) -> Document:
    """The JSON document of a comparison: ``{schema_version, base, others}``.

    Each of ``others`` has its ``run`` and ``name``, whether it is ``paired`` (both met the same random numbers),
    ``figures`` (each ``metric``, ``base``, ``other``, ``difference``, ``ratio``, ``ci95`` of the difference,
    ``significant``: run-to-run noise does not explain it, ``separable``: the model's error does not either), ``cost``
    (lines of both with their difference) and ``configuration`` (only what differs). Latencies of a load without a
    steady state are withheld.
    """
    return {
        "schema_version": base.summary["schema_version"],
        "base": _head(base),
        "others": [_against(base, other) for other in others],
    }


def _head(saved: Saved) -> Document:
    scenario = saved.summary["scenario"]["scenario"]
    return {
        "run": saved.summary["run"]["id"],
        "name": scenario.get("name") or f"{scenario['model']} on {scenario['node']}",
        "saturated": saved.summary["saturated"],
    }


def _against(base: Saved, other: Saved) -> Document:
    paired = _same_numbers(base, other)
    withheld = [name for saved in (base, other) if saved.summary["saturated"] for name in LATENCIES]
    metrics = [metric for metric in FIGURES if metric.rsplit("_", 1)[0] not in withheld]
    return {
        **_head(other),
        "paired": paired,
        "figures": [_figure(metric, base, other, paired) for metric in metrics],
        "cost": _costs(base.summary["cost"], other.summary["cost"]),
        "configuration": _differing(base.summary["scenario"], other.summary["scenario"]),
    }


def _same_numbers(base: Saved, other: Saved) -> bool:
    """Whether replication i of both met the same random numbers."""
    ours, theirs = base.summary["run"], other.summary["run"]
    return bool(ours["seed"] == theirs["seed"] and len(base.replications) == len(other.replications))


def _figure(metric: str, base: Saved, other: Saved, paired: bool) -> Document:
    ours, theirs = (saved.replications[metric].to_numpy(float) for saved in (base, other))
    mean, half_width = difference_interval(ours, theirs, paired=paired)
    at = float(ours.mean())
    known = not np.isnan(half_width)
    return {
        "metric": metric,
        "base": at,
        "other": float(theirs.mean()),
        "difference": mean,
        "ratio": float(theirs.mean()) / at if at else None,
        "ci95": [mean - half_width, mean + half_width] if known else None,
        "significant": bool(abs(mean) > half_width) if known else None,
        "separable": _separable(_bracket(base.summary, metric), _bracket(other.summary, metric)),
    }


def _bracket(summary: Document, metric: str) -> list[float] | None:
    """[low, high] of a figure with the model's error; None where it is not known."""
    error = summary.get("model_error")
    if error is None:
        return None
    name, _, percentile = metric.rpartition("_")
    if name in LATENCIES:
        return _ends(error[name][percentile])
    return _ends(error["goodput"] if metric == "goodput" else error["throughput"][metric])


def _ends(bracket: list[float | None] | None) -> list[float] | None:
    """With infinity where there is no bound."""
    return None if bracket is None else [np.inf if end is None else end for end in bracket]


def _separable(ours: list[float] | None, theirs: list[float] | None) -> bool | None:
    return None if ours is None or theirs is None else separable(ours, theirs)


def _costs(base: Document, other: Document) -> list[Document]:
    """Cost lines of both by name, and the total; None where a price is unknown."""
    ours, theirs = ({line["name"]: line["monthly_usd"] for line in cost["lines"]} for cost in (base, other))
    lines = [_line(name, ours.get(name, 0.0), theirs.get(name, 0.0)) for name in dict.fromkeys([*ours, *theirs])]
    return [*lines, _line("total", base["monthly_usd"], other["monthly_usd"])]


def _line(name: str, ours: float | None, theirs: float | None) -> Document:
    difference = None if ours is None or theirs is None else theirs - ours
    return {"name": name, "base_usd": ours, "other_usd": theirs, "difference_usd": difference}


def _differing(base: Document, other: Document) -> list[Document]:
    """Settings that differ, and what follows from them for layout and memory."""
    ours, theirs = _settings(base), _settings(other)
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    return [{"key": key, "base": ours.get(key), "other": theirs.get(key)} for key in keys]


def _settings(lock: Document) -> Document:
    resolved = {name: lock["resolved"][name] for name in ("parallelism", "memory")}
    scenario = Scenario.model_validate(lock["scenario"]).model_dump(mode="json", exclude={"name", "description"})
    return _flat({"capsim": lock["capsim"], **scenario, "resolved": resolved})


def _flat(values: Document, before: str = "") -> Document:
    flat: Document = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
