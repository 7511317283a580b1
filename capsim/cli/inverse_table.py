"""Answers to the questions turned around, as text: the last line is the one a planner quotes."""

from typing import Any

from capsim import units
from capsim.cli.plan_table import excluded_rows
from capsim.cli.tables import Rows, csv_text, document_text, latency_rows, many, notes, share_text
from capsim.json_text import to_json


def render_answer(document: dict[str, Any], format_: str) -> str:
    """One of them in one of the four formats."""
    if format_ == "json":
        return to_json(document)
    if format_ == "csv":
        return csv_text({key: value for key, value in document.items() if key != "scenario"})
    seen = document["simulated"]
    verdict = "kept" if seen["passed"] else "MISSED"
    check = [["Simulated", f"SLO {verdict}: goodput {share_text(seen['goodput'], seen['goodput_ci95'])}"]]
    blocks = [
        _fleet_rows(document.get("estimates", [])), excluded_rows(document.get("excluded", [])), check,
        latency_rows(seen),
    ]  # fmt: skip
    return document_text(blocks, [*notes(seen["warnings"]), _quotable(document)], format_)


def _fleet_rows(estimates: list[dict[str, Any]]) -> Rows:
    """What the money buys, the fastest first."""
    rows = [["Fleets (estimated)", "KV", "layout", "batch cap", "nodes", "a month", "TTFT p95", "TPOT p50", "TPOT p95"]]
    for row in estimates:
        ttft, tpot = row["latency"]["ttft_s"], row["latency"]["tpot_s"]
        rows.append([
            row["node"], row["kv_format"], row["parallelism"], f"{row['max_num_seqs']:,}", f"{row['nodes']:,}",
            units.usd(row["monthly_usd"]), *(units.seconds(value) for value in (ttft["p95"], tpot["p50"], tpot["p95"])),
        ])  # fmt: skip
    return rows if estimates else []


def _quotable(document: dict[str, Any]) -> str:
    users = f"{document['users']:,} users"
    if document["question"] == "longest context":
        tokens, beyond = document["prompt_tokens"]
        ends = f"{beyond:,} miss the SLO; {document['estimated_prompt_tokens']:,} estimated"
        return f"prompts of {tokens:,} tokens ({ends}) for {users} on {many(document['nodes'], 'node')}"
    best, tpot = document["estimates"][0], document["simulated"]["latency"]["tpot_s"]
    fleet = f"{many(best['nodes'], 'node')} of {best['node']}, {units.usd(best['monthly_usd'])} a month"
    p95 = "TPOT unknown" if tpot["p95"] is None else f"TPOT p95 {units.seconds(tpot['p95'])}"
    return f"{p95} for {users} on {fleet}, one of which may be down"
