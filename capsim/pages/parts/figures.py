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


def columns(rows: Rows) -> dict[str, list[str]]:
    """A table by its columns, the first row being its head; cells that are missing are empty."""
    head, *body = rows
    width = max(map(len, rows))
    names = [name or " " * (place + 1) for place, name in enumerate([*head, *[""] * (width - len(head))])]
    return {name: [row[place] if place < len(row) else "" for row in body] for place, name in enumerate(names)}


def curve_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The capacity curves of a plan's candidates, each row with its node."""
    return [{"node": one["node"], **row} for one in document["candidates"] for row in one.get("curve", [])]
