"""Figures as a visitor reads them: humanised, with their unit, and unknown where they are."""

from collections.abc import Callable
from typing import Any

from capsim import units
from capsim.cli.tables import Rows


def usd(value_usd: float | None) -> str:
    return "price unknown" if value_usd is None else units.usd(value_usd)


def seconds(value_s: float | None) -> str:
    return "none" if value_s is None else units.seconds(value_s)


def difference(simulated: float | None, estimate: float | None, text: Callable[[float], str]) -> str | None:
    """How far the closed form was off, with its sign; None where one of the two is not known."""
    if simulated is None or estimate is None:
        return None
    gap = simulated - estimate
    if gap == 0:
        return "as estimated"
    return f"{'-' if gap < 0 else '+'}{text(abs(gap))} to estimate"


def columns(rows: Rows) -> tuple[bool, dict[str, list[str]]]:
    """Whether a table has a head, and its columns by name; cells that are missing are empty.

    The first row is a head where there are more than two columns: two are labels and values.
    """
    width = max(map(len, rows))
    headed = width > 2
    head, body = (rows[0], rows[1:]) if headed else ([], rows)
    names = [name or " " * (place + 1) for place, name in enumerate([*head, *[""] * (width - len(head))])]
    cells = {name: [row[place] if place < len(row) else "" for row in body] for place, name in enumerate(names)}
    return headed, cells


def told_apart(candidates: list[dict[str, Any]]) -> list[str]:
    """Names of a plan's candidates: the node, and what else differs between them."""
    parts = [
        (one["node"], f"{one['kv_format']} KV", one["parallelism"], f"batch cap {one['max_num_seqs']:,}")
        for one in candidates
    ]
    tells = [place == 0 or len(set(column)) > 1 for place, column in enumerate(zip(*parts, strict=True))]
    return [", ".join(part for part, telling in zip(one, tells, strict=True) if telling) for one in parts]


def curve_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The capacity curves of a plan's candidates, each row with the candidate it is of, and whether it is its knee, the
    last number of sessions inside the SLO."""
    return [
        {"candidate": name, "knee": row["sessions"] == one["sessions"]["attached"][0], **row}
        for name, one in zip(told_apart(document["candidates"]), document["candidates"], strict=True)
        for row in one.get("curve", [])
    ]
