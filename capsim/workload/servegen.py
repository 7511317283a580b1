"""ServeGen's clients (chunk files of rates, gaps and lengths in windows) as classes of one workload."""

import ast
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from capsim.errors import ScenarioError
from capsim.workload.arrivals import Window
from capsim.workload.distributions import MAX_TOKENS
from capsim.workload.fit_lengths import QUANTILES

UNREADABLE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError, OverflowError, RecursionError,
    MemoryError,
)  # fmt: skip
FIELDS = {"prompt_tokens": "input_tokens", "output_tokens": "output_tokens"}


def is_clients(folder: Path) -> bool:
    """Whether a folder holds ServeGen's chunk files."""
    return folder.is_dir() and any(folder.glob("chunk-*-trace.csv"))


def read_clients(folder: Path) -> dict[str, Any]:
    """A workload's values: one class a client, with its own windows and lengths. Clients that never ask are left out.

    Raises
    ------
    ScenarioError
        A file is missing, or a window or a distribution cannot be read.
    """
    classes = []
    for path in sorted(folder.glob("chunk-*-trace.csv"), key=_number):
        name = path.stem.removesuffix("-trace")
        starts_s, windows = _windows(path)
        rates = np.array([window.rate_per_s for window in windows])
        if not rates.any():
            continue
        given = [window.model_dump(exclude_unset=True) for window in windows]
        arrival = {"kind": "windows", "window_s": starts_s[1] - starts_s[0], "windows": given}
        lengths = _lengths(folder / f"{name}-dataset.json", np.array(starts_s), rates)
        classes.append({"name": name, "arrival": arrival, **lengths})
    if not classes:
        raise ScenarioError.one("no client ever asks", path=folder)
    return {"arrival": {"kind": "superposed", "classes": classes}}


def _number(path: Path) -> int:
    number = path.stem.removeprefix("chunk-").removesuffix("-trace")
    if not (number.isascii() and number.isdigit()):
        raise ScenarioError.one(f"expected chunk-NUMBER-trace.csv, got '{path.name}'", path=path)
    return int(number)


def _windows(path: Path) -> tuple[list[float], list[Window]]:
    starts_s: list[float] = []
    windows = []
    for line, row in enumerate(_rows(path), 1):
        try:
            start_s, rate, cv = (float(field) for field in row[:3])
            given = {"rate_per_s": rate, "cv": cv, "gaps": row[3].lower()} if rate else {"rate_per_s": 0.0}
            windows.append(Window.model_validate(given))
        except (ValueError, IndexError) as error:
            message = "expected start, rate, cv and family (gamma or weibull)"
            raise ScenarioError.one(message, path=path, line=line) from error
        if starts_s and not start_s > starts_s[-1]:
            raise ScenarioError.one("starts no later than the window before it", path=path, line=line)
        starts_s.append(start_s)
    if len(starts_s) < 2:
        raise ScenarioError.one("has fewer than two windows", path=path)
    return starts_s, windows


def _rows(path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError.one(f"not a readable CSV: {error}", path=path) from error


def _lengths(path: Path, starts_s: np.ndarray, rates: np.ndarray) -> dict[str, Any]:
    """Quantiles of each length over all of the client's requests: its windows weighted by their rates."""
    if not path.is_file():
        raise ScenarioError.one("the client's lengths are missing", path=path)
    parts: dict[str, dict[int, float]] = {role: {} for role in FIELDS}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        datasets = {float(start): fields for start, fields in document.items() if fields}
        begins = np.array(sorted(datasets))
        chosen = np.maximum(np.searchsorted(begins, starts_s, side="right") - 1, 0)
        weights = np.bincount(chosen, rates, minlength=len(begins))
        for begin, weight in zip(begins, weights, strict=True):
            for role, field in FIELDS.items():
                for tokens, share in _shares(datasets[begin][field]).items():
                    parts[role][max(tokens, 1)] = parts[role].get(max(tokens, 1), 0.0) + weight * share
        return {role: _grid(shares) for role, shares in parts.items()}
    except UNREADABLE as error:
        raise ScenarioError.one("expected distributions of input_tokens and output_tokens", path=path) from error


def _shares(text: str) -> dict[int, float]:
    """Shares of requests by their tokens."""
    shares = ast.literal_eval(text)
    for tokens, share in shares.items():
        if not (isinstance(tokens, int) and 0 <= tokens <= MAX_TOKENS and 0 <= share < np.inf):
            raise ValueError(f"not a share of requests: {tokens}: {share}")
    return dict(shares)


def _grid(shares: dict[int, float]) -> dict[str, Any]:
    tokens = np.array(sorted(shares))
    reached = np.cumsum([shares[token] for token in tokens.tolist()])
    if not 0 < reached[-1] < np.inf:
        raise ValueError("no request has a length")
    places = np.searchsorted(reached, np.array(QUANTILES) * reached[-1] * (1 - 1e-12))
    return {"kind": "grid", "quantiles": list(QUANTILES), "values": tokens[places].astype(float).tolist()}
