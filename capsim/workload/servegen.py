"""ServeGen's clients (chunk files of rates, gaps and lengths in windows) as classes of one workload."""

import ast
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from capsim.errors import ScenarioError
from capsim.workload.fit import QUANTILES

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
    for path in sorted(folder.glob("chunk-*-trace.csv"), key=lambda path: int(path.stem.split("-")[1])):
        name = path.stem.removesuffix("-trace")
        starts_s, windows = _windows(path)
        if not any(window["rate_per_s"] for window in windows):
            continue
        arrival = {"kind": "windows", "window_s": starts_s[1] - starts_s[0], "windows": windows}
        rates = np.array([window["rate_per_s"] for window in windows])
        lengths = _lengths(folder / f"{name}-dataset.json", np.array(starts_s), rates)
        classes.append({"name": name, "arrival": arrival, **lengths})
    return {"arrival": {"kind": "superposed", "classes": classes}}


def _windows(path: Path) -> tuple[list[float], list[dict[str, Any]]]:
    starts_s, windows = [], []
    for line, row in enumerate(csv.reader(path.read_text().splitlines()), 1):
        try:
            start_s, rate, cv = (float(field) for field in row[:3])
            family = row[3].lower()
        except (ValueError, IndexError) as error:
            raise ScenarioError.one("expected start, rate, cv and family", path=path, line=line) from error
        starts_s.append(start_s)
        windows.append({"rate_per_s": rate, "cv": cv, "gaps": family} if rate > 0 else {"rate_per_s": 0.0})
    if len(starts_s) < 2:
        raise ScenarioError.one("has fewer than two windows", path=path)
    return starts_s, windows


def _lengths(path: Path, starts_s: np.ndarray, rates: np.ndarray) -> dict[str, Any]:
    """Quantiles of each length over all of the client's requests: its windows weighted by their rates."""
    if not path.is_file():
        raise ScenarioError.one("the client's lengths are missing", path=path)
    parts: dict[str, dict[int, float]] = {role: {} for role in FIELDS}
    try:
        datasets = {float(start): fields for start, fields in json.loads(path.read_text()).items() if fields}
        begins = np.array(sorted(datasets))
        chosen = np.maximum(np.searchsorted(begins, starts_s, side="right") - 1, 0)
        weights = np.bincount(chosen, rates, minlength=len(begins))
        for begin, weight in zip(begins, weights, strict=True):
            for role, field in FIELDS.items():
                shares = ast.literal_eval(datasets[begin][field])
                for tokens, share in shares.items():
                    parts[role][max(tokens, 1)] = parts[role].get(max(tokens, 1), 0.0) + weight * share
    except (ValueError, KeyError, IndexError, TypeError, SyntaxError) as error:
        raise ScenarioError.one("expected distributions of input_tokens and output_tokens", path=path) from error
    return {role: _grid(shares) for role, shares in parts.items()}


def _grid(shares: dict[int, float]) -> dict[str, Any]:
    tokens = np.array(sorted(shares))
    reached = np.cumsum([shares[token] for token in tokens.tolist()])
    places = np.searchsorted(reached, np.array(QUANTILES) * reached[-1] * (1 - 1e-12))
    return {"kind": "grid", "quantiles": list(QUANTILES), "values": tokens[places].astype(float).tolist()}
