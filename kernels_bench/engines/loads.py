"""What clients send: requests read from a CSV, or drawn from a seed."""

import csv
import random
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
PROMPT, OUTPUT = (32, 640), (16, 128)
LONG_PROMPT, LONG_OUTPUT = (500, 1000), (150, 400)


class Request(NamedTuple):
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Load:
    """Requests in the order of their arrival. ``kind`` and ``rate_per_s`` say how they were drawn."""

    kind: str
    requests: list[Request]
    rate_per_s: float | None = None
    seed: int = 0


def burst(requests: int, seed: int) -> Load:
    """All at once."""
    return _at_once("burst", requests, seed, PROMPT, OUTPUT)


def starved(requests: int, seed: int) -> Load:
    """All at once, and so long that their answers outgrow the KV pool."""
    draw = random.Random(seed)
    return Load(
        "starved", [Request(0.0, *lengths(draw, LONG_PROMPT, LONG_OUTPUT)) for _ in range(requests)], None, seed
    )


def poisson(requests: int, rate_per_s: float, seed: int) -> Load:
    """One by one, independently of each other."""
    draw, now_s, rows = random.Random(seed), 0.0, []
    for _ in range(requests):
        now_s += draw.expovariate(rate_per_s)
        rows.append(Request(now_s, *lengths(draw, PROMPT, OUTPUT)))
    return Load("poisson", rows, rate_per_s, seed)


def _at_once(kind: str, requests: int, seed: int, prompt: tuple[int, int], output: tuple[int, int]) -> Load:
    draw = random.Random(seed)
    return Load(kind, [Request(0.0, *lengths(draw, prompt, output)) for _ in range(requests)], None, seed)


def lengths(draw: random.Random, prompt: tuple[int, int], output: tuple[int, int]) -> tuple[int, int]:
    """Prompt and output tokens, each log-uniform between two limits."""
    first, second = (round(exp(draw.uniform(log(low), log(high)))) for low, high in (prompt, output))
    return first, second


def read_csv(path: Path) -> Load:
    """A load from a file with the columns arrival_s, prompt_tokens, output_tokens.

    Raises
    ------
    ValueError
        A missing column, or a row that is no request; the message names file and line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise ValueError(f"{path}:1: missing column {', '.join(missing)}; expected {','.join(COLUMNS)}")
        requests = [_request(row, f"{path}:{number}") for number, row in enumerate(rows, 2)]
    if not requests:
        raise ValueError(f"{path}: no requests")
    return Load(path.stem, sorted(requests))


def _request(row: dict[str, str], where: str) -> Request:
    try:
        request = Request(float(row["arrival_s"]), int(row["prompt_tokens"]), int(row["output_tokens"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a request ({error}); expected seconds and two whole numbers") from error
    if request.arrival_s < 0 or min(request[1:]) < 1:
        raise ValueError(f"{where}: arrival_s must not be negative, and token counts must be at least 1")
    return request
