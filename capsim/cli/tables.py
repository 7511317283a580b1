"""Results as text: tables for people, JSON and CSV for scripts, markdown for documents."""

import csv
import io
from typing import Any

from capsim import units
from capsim.glossary import LATENCIES, METRICS
from capsim.json_text import to_json

Rows = list[list[str]]
PERCENTILES = ("mean", "p50", "p90", "p95", "p99")


def render_run(summary: dict[str, Any], format_: str) -> str:
    """A run's summary in one of the four formats."""
    if format_ == "json":
        return to_json(summary)
    if format_ == "csv":
        return csv_text({key: value for key, value in summary.items() if key not in ("scenario", "basis")})
    return document_text(run_blocks(summary), notes(summary["warnings"]), format_)


def run_blocks(summary: dict[str, Any]) -> list[Rows]:
    """A run's summary as tables."""
    return [
        _run_head(summary), latency_rows(summary), _turn_rows(summary["turns"]), _session_rows(summary["sessions"]),
        _fleet_rows(summary), cost_rows(summary["cost"]), _api_rows(summary["api"]),
        basis_rows(summary["basis"]),
    ]  # fmt: skip


def _run_head(summary: dict[str, Any]) -> Rows:
    run, requests = summary["run"], summary["requests"]
    nodes = summary["scenario"]["scenario"].get("nodes", 1)
    rows = [
        *what_rows(summary),
        ["Run", f"{run['id']} on {many(nodes, 'node')}, seed {run['seed']}, "
                f"{many(run['replications'], 'replication')}"],
        ["Requests", _counts(requests)],
        ["Throughput", f"{summary['throughput']['requests_per_s']:.3g} requests/s, "
                       f"{units.count(summary['throughput']['output_tokens_per_s'])} output tokens/s"],
        *model_error_rows(summary.get("model_error")),
    ]  # fmt: skip
    if summary["saturated"]:
        rows.append(["Steady state", f"none: backlog grows by {summary['backlog_growth_per_s']:.3g} requests/s"])
    elif summary["slo"] is not None:
        goodput = share_text(summary["goodput"], summary["goodput_ci95"])
        verdict = "met" if summary["slo"]["passed"] else "MISSED"
        rows.append(["SLO", f"{verdict}: goodput {goodput}, target {summary['slo']['attained']:.0%}"])
    return rows


def _counts(requests: dict[str, Any]) -> str:
    """What became of the requests, and of what was asked for where some of it was asked again."""
    from capsim.metrics.requests import OUTCOMES

    seen = [name for name in ("offered", *OUTCOMES) if requests[name] or name != "abandoned"]
    parts = [f"{requests[name]:,} {name}" for name in seen]
    if requests["asks"] != requests["offered"]:
        parts.append(f"{requests['served_share']:.1%} of {requests['asks']:,} asks served")
    return ", ".join(parts)


def model_error_rows(error: dict[str, Any] | None) -> Rows:
    """By how much the model may be off, what tells so, and what that does to throughput and goodput."""
    if error is None:
        return []
    tokens = " to ".join(map(units.count, error["throughput"]["output_tokens_per_s"]))
    goodput = error["goodput"]
    share = "" if goodput is None else f", goodput {goodput[0]:.1%} to {goodput[1]:.1%}"
    return [model_error_row(error), ["With it", f"{tokens} output tokens/s{share}"]]


def model_error_row(error: dict[str, Any]) -> list[str]:
    """By how much step times may be off, and what tells so."""
    low, high = error["step_time"]
    return ["Model error", f"step times x{low:.2f} to x{high:.2f} ({error['basis']}: {error['source']})"]


def what_rows(document: dict[str, Any]) -> Rows:
    """Which model, on what, against which target."""
    scenario, resolved = document["scenario"]["scenario"], document["scenario"]["resolved"]
    layout = resolved["parallelism"]
    pipeline = f" pp{layout['pp']}" if layout["pp"] > 1 else ""
    expert = " with experts spread" if layout["expert"] else ""
    rows = [
        ["Model", f"{resolved['model']['name']}, {resolved['weights']['name']} weights, "
                  f"{resolved['kv_format']['name']} KV"],
        ["Node", f"{resolved['node']['name']}, tp{layout['tp']}{pipeline} dp{layout['dp']}{expert}, "
                 f"{resolved['engine']['name']}"],
    ]  # fmt: skip
    target = scenario.get("slo")
    if target is not None:
        later = f"; later turns {_limits(target['later_turns'])}" if "later_turns" in target else ""
        rows.append(["Target", f"{_limits(target)}{later} for {target.get('attained', 0.95):.0%} of requests"])
    return rows


def _limits(target: dict[str, float]) -> str:
    return ", ".join(f"{METRICS[name].label} {units.seconds(target[name])}" for name in LATENCIES if name in target)


def latency_rows(summary: dict[str, Any]) -> Rows:
    """Means and percentiles; the two kinds of uncertainty stand apart."""
    latency = summary.get("latency", summary)
    error = summary.get("model_error")
    rows = [["", *PERCENTILES, "95 % interval of the mean", *(["mean with model error"] if error else [])]]
    for name in LATENCIES:
        values = latency[name]
        if values["mean"] is None:
            continue
        intervals = [bracket_text(values["ci95"]) if values["ci95"] else ""]
        intervals += [bracket_text(error[name]["mean"])] if error else []
        rows.append([METRICS[name].label, *(units.seconds(values[p]) for p in PERCENTILES), *intervals])
    return rows if len(rows) > 1 else []


def bracket_text(bracket: list[float | None]) -> str:
    """A bracket of seconds; without a high end where there is no steady state."""
    low, high = (None if end is None else units.seconds(end) for end in bracket)
    return f"{low} or more" if high is None else f"{low} to {high}"


def _turn_rows(turns: dict[str, Any] | None) -> Rows:
    """How first and later turns of sessions fare."""
    if turns is None or not turns["later"]["requests"]:
        return []
    rows = [["Turns", "prompt cached", "goodput", "TTFT p50", "TTFT p95", "E2E p50", "E2E p95"]]
    for name, seen in turns.items():
        shares = ["" if seen[key] is None else f"{seen[key]:.1%}" for key in ("hit_rate", "goodput")]
        times = [seen[latency][key] for latency in ("ttft_s", "e2e_s") for key in ("p50", "p95")]
        rows.append([name, *shares, *("" if value is None else units.seconds(value) for value in times)])
    return rows


def _session_rows(sessions: dict[str, Any] | None) -> Rows:
    """Sessions in their three senses, and whether N = X (R + Z) holds."""
    if sessions is None or sessions["attached"]["mean"] is None:
        return []
    rows = [["Sessions", "mean", "peak"]]
    for name in ("attached", "cached", "in_flight"):
        if level := sessions[name]:
            rows.append([METRICS[name].label, count_text(level["mean"], ",.4g"), count_text(level["peak"], ",.0f")])
    cycle = sessions["cycle"]
    if cycle is not None and cycle["expected"] is not None:
        sum_s = f"({units.seconds(cycle['response_s'])} + {units.seconds(cycle['think_s'])})"
        rows.append([f"X (R + Z) = {cycle['requests_per_s']:.3g}/s x {sum_s}", f"{cycle['expected']:,.4g}"])
    return rows


def _fleet_rows(summary: dict[str, Any]) -> Rows:
    kv, shares = summary["kv"], summary["step_time_share"]
    caches = kv["hit_rate"] > 0 or kv["evicted_blocks"] > 0
    hits = [["Prefix cache", f"{kv['hit_rate']:.1%} of prompt tokens, {kv['evicted_blocks']:,} blocks evicted"]]
    busiest = sorted(((share, name) for name, share in shares.items() if share and share == share), reverse=True)
    return [
        ["KV cache", f"{units.count(kv['capacity_tokens'])} tokens, mean use {kv['mean_utilisation']:.1%}"],
        *(hits if caches else []),
        *([["KV offload", _offloaded(kv["offload"])]] if kv["offload"] else []),
        ["Preemptions", f"{summary['preemptions']:,}"],
        ["In flight", f"{summary['in_flight']:.3g} sequences on average"],
        ["Utilisation", f"{summary['utilisation']:.1%} of throughput at saturation, "
                        f"busy {summary['busy_fraction']:.1%} of the time"],
        ["Step time", ", ".join(f"{name} {share:.0%}" for share, name in busiest)],
    ]  # fmt: skip


def _offloaded(offload: dict[str, Any]) -> str:
    """What of the prompts was found where, and what was loaded."""
    tiers = {name: tier for name, tier in offload.items() if isinstance(tier, dict)}
    loads = [f"{name} {t['hit_rate']:.1%} ({units.bytes_(t['loaded_bytes'])} loaded)" for name, t in tiers.items()]
    return ", ".join([f"prompt tokens found on the device {offload['device_hit_rate']:.1%}", *loads])


def count_text(value: float | None, digits: str) -> str:
    return "" if value is None else format(value, digits)


def share_text(share: float, interval: list[float] | None) -> str:
    return f"{share:.1%}" if interval is None else f"{share:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def cost_rows(cost: dict[str, Any], what: str = "Monthly cost") -> Rows:
    if not cost["lines"]:
        return [[what, "price unknown"]]
    rows = [[what, "quantity", "unit", "each", "a month"]]
    for line in cost["lines"]:
        known = line["unit_usd"] is not None
        each, monthly = (f"${line['unit_usd']:,.4g}", units.usd(line["monthly_usd"])) if known else ("unknown", "")
        quantity = format(line["quantity"], ",.0f" if line["quantity"] >= 10_000 else ",.4g")
        rows.append([line["name"], quantity, line["unit"], each, monthly])
    if cost["monthly_usd"] is None:
        missing = ", ".join(line["name"] for line in cost["lines"] if line["unit_usd"] is None)
        return [*rows, [f"total without {missing}", "", "", "", units.usd(cost["known_usd"])]]
    return [*rows, ["total", "", "", "", units.usd(cost["monthly_usd"])]]


def _api_rows(bill: dict[str, Any] | None) -> Rows:
    """What a hosted model would bill for the same traffic."""
    return [] if bill is None else cost_rows(bill, f"The same by {bill['tier']}")


def basis_rows(basis: dict[str, Any]) -> Rows:
    """What each part of the answer rests on."""
    rows = [["Rests on", "entry", "basis", "as of"]]
    return rows + [[part, fact["key"], fact["basis"], fact["as_of"]] for part, fact in basis.items()]


def many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def notes(warnings: list[str]) -> list[str]:
    return [f"note: {warning}" for warning in warnings]


def document_text(blocks: list[Rows], lines: list[str], format_: str) -> str:
    draw = _markdown if format_ == "markdown" else text
    parts = [draw(rows) for rows in blocks if rows]
    return "\n".join(parts + ["".join(f"{line}\n" for line in lines)] * bool(lines))


def text(rows: Rows) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() + "\n" for row in rows)


def _markdown(rows: Rows) -> str:
    head, *body = rows if len(rows[0]) > 2 else [["", ""], *rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(row) + " |\n" for row in lines)


def csv_text(document: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["metric", "value"])
    writer.writerows(_flat(document, ""))
    return text.getvalue()


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flat(inner, f"{path}.{key}" if path else key)]
    if isinstance(value, list):
        return [row for index, inner in enumerate(value) for row in _flat(inner, f"{path}.{index}")]
    return [(path, "" if value is None or value != value else value)]
