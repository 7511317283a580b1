"""Errors against published points as text."""

import csv
import io
from typing import Any

from capsim import units

Rows = list[list[str]]
TIMES = ("ttft", "tpot", "itl", "e2e", "duration", "prefill_time")
CITED = ("use", "source", "device", "engine", "metric", "figures", "median_abs_error", "bias", "worst_error",
         "worst_point")  # fmt: skip
"""Columns of the CSV form: the errors, ``fit`` and ``judge`` told apart by the first."""


def render_points(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.validate.errors`` in one of the four formats; CSV has the errors only."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return _csv(document)
    blocks = [_head(document)]
    blocks += [_errors(use, rows) for use, rows in document["errors"].items() if rows]
    blocks += [_made_of(document["made_of"]), _worst(document["worst"])]
    blocks += [
        _counted(f"{title}", name, document[key])
        for key, title, name in (
            ("assumed", "Assumed where nothing is stated", "condition"), ("skipped", "Not run", "reason"),
            ("left_out", "Figures not compared", "figure"),
        ) if document[key]
    ]  # fmt: skip
    return tables.document_text(blocks, [], format_)


def _csv(document: dict[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, CITED, lineterminator="\n")
    writer.writeheader()
    for use, rows in document["errors"].items():
        for row in rows:
            writer.writerow(
                {"use": use}
                | {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
            )
    return out.getvalue()


def _head(document: dict[str, Any]) -> Rows:
    order = document["device_order"]
    rows = [["Points", f"{document['points']:,}, of which {document['judged']:,} are modelled and compared"]]
    if order["pairs"]:
        rows.append(["Faster device", f"right in {order['right']:,} of {order['pairs']:,} pairs that judge"])
    return rows


def _errors(use: str, rows: list[dict[str, Any]]) -> Rows:
    title = {"fit": "Points that constants may be fitted on", "judge": "Points that only judge"}[use]
    found = [[title, "device", "engine", "metric", "figures", "median", "bias", "worst", "at"]]
    for row in rows:
        found.append([
            row["source"], row["device"], row["engine"], row["metric"], f"{row['figures']:,}",
            f"{row['median_abs_error']:.1%}", f"{row['bias']:+.1%}", f"{row['worst_error']:+.1%}", row["worst_point"],
        ])  # fmt: skip
    return found


def _made_of(rows: list[dict[str, Any]]) -> Rows:
    """What the simulated steps are made of where TPOT or throughput is far off."""
    head = [
        "Off by more than 15 %", "device", "engine", "model", "metric", "median", "bias", "step", "batch", "KV pool",
        "preempted", "step time",
    ]  # fmt: skip
    found = [head] if rows else []
    for row in rows:
        found.append([
            row["source"], row["device"], row["engine"], row["model"], row["metric"], f"{row['median_abs_error']:.0%}",
            f"{row['bias']:+.0%}", units.seconds(row["step_s"]), f"{row['batch']:.0f}", f"{row['kv_pool_used']:.0%}",
            f"{row['preemptions']:.0f}", _shares(row["step_time_share"]),
        ])  # fmt: skip
    return found


def _shares(shares: dict[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered if share >= 0.05)


def _worst(worst: list[dict[str, Any]]) -> Rows:
    """What the furthest figures' simulated runs were made of."""
    rows = [
        ["Furthest off", "what", "load", "figure", "published", "simulated", "step", "batch", "KV pool", "step time"]
    ]
    for each in worst:
        what = f"{each['model']} {each['device']} {each['engine']} {each['parallelism']}"
        load = f"{each['isl']}/{each['osl']}, {each['load']}"
        rows.append([
            each["point"], what, load, each["metric"], _value(each, "published"), _value(each, "simulated"),
            units.seconds(each["step_s"]), f"{each['batch']:.0f}", f"{each['kv_pool_used']:.0%}",
            _shares(each["step_time_share"] or {}),
        ])  # fmt: skip
    return rows


def _value(each: dict[str, Any], key: str) -> str:
    value = each[key]
    if any(part in each["metric"] for part in TIMES):
        return units.seconds(value)
    return units.bytes_(value) if each["metric"].endswith("_gib") else units.count(value)


def _counted(title: str, name: str, rows: list[dict[str, Any]]) -> Rows:
    return [[title, ""], *([row[name], f"{row['count']:,}"] for row in rows)]
