"""Workload profiles of kubernetes-sigs/inference-perf: a request's lengths from means, spreads and bounds."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import expon, lognorm, norm

from capsim.errors import ScenarioError
from capsim.workload.distributions import MAX_TOKENS
from capsim.workload.fit import QUANTILES

MAX_BYTES = 1_000_000
MAX_MS = 1e9
TAIL = 1e-6
ASSUMED_RATE_PER_S = 1.0
SLO_KEY = re.compile(r"(ttft|itl|tpot|e2e)_p(\d+)_ms$")


def is_profile(path: Path) -> bool:
    """Whether a file is such a profile, and no trace."""
    return path.suffix == ".json" and path.is_file() and "input_sequence_length" in _document(path)


def read_profile(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A workload's values, and the profile's latency targets as ``{ttft p99: 1 s}``.

    The lengths are those of one request, whatever its turn. A profile says nothing of when sessions come: one request
    a second stands for it.

    Raises
    ------
    ScenarioError
        A length lacks a value, or has a distribution that is not known; a target is not a number.
    """
    profile = _document(path)
    values = {
        "arrival": {"kind": "poisson", "rate_per_s": ASSUMED_RATE_PER_S},
        "prompt_tokens": _distribution(profile, "input_sequence_length", path),
        "output_tokens": _distribution(profile, "output_sequence_length", path),
    }
    return values, _targets(profile, path)


def _document(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty where it is none, or too large to be a profile."""
    if path.stat().st_size > MAX_BYTES:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _targets(profile: dict[str, Any], path: Path) -> dict[str, str]:
    metadata = profile.get("metadata", {})
    slos = metadata.get("slos", {}) if isinstance(metadata, dict) else None
    if not isinstance(slos, dict):
        raise ScenarioError.one("expected latency targets by their names", path=path, key="metadata.slos")
    targets = {}
    for name, target_ms in slos.items():
        if found := SLO_KEY.match(name):
            if isinstance(target_ms, bool) or not isinstance(target_ms, (int, float)) or not 0 < target_ms < MAX_MS:
                message = f"expected milliseconds (got {target_ms!r})"
                raise ScenarioError.one(message, path=path, key=f"metadata.slos.{name}")
            targets[f"{found[1]} p{found[2]}"] = f"{target_ms / 1000:g} s"
    return targets


def _distribution(profile: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Quantiles of the profile's distribution, cut to its bounds as inference-perf cuts its draws."""
    given = profile.get(key, {})
    try:
        low, high, mean, spread = (float(given[name]) for name in ("min", "max", "mean", "standard_deviation"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ScenarioError.one("needs min, max, mean and standard_deviation", path=path, key=key) from error
    low = max(low, 1.0)
    if not low <= mean <= high <= MAX_TOKENS:
        raise ScenarioError.one("mean must lie between min and max", path=path, key=key)
    if not 0 <= spread <= MAX_TOKENS:
        raise ScenarioError.one(f"not a standard_deviation: {spread:g}", path=path, key=key)
    kind = str(given.get("distribution_type", "log_normal"))
    if spread == 0 or mean == low:
        return {"kind": "constant", "value": mean}
    if kind == "bimodal":
        return _two_modes(low, mean, spread)
    if kind == "uniform":
        return {"kind": "uniform", "low": low, "high": high}
    quantiles = np.clip(QUANTILES, TAIL, 1 - TAIL)
    sigma = float(np.sqrt(np.log1p((spread / (mean - low)) ** 2)))
    drawn = {
        "normal": lambda: norm.ppf(quantiles, mean, spread),
        "log_normal": lambda: low + lognorm.ppf(quantiles, sigma, scale=(mean - low) * np.exp(-(sigma**2) / 2)),
        "exponential": lambda: low + expon.ppf(quantiles, scale=mean - low),
    }
    if kind not in drawn:
        raise ScenarioError.one(f"unknown distribution_type '{kind}'", path=path, key=key)
    values = [float(f"{value:.6g}") for value in np.clip(drawn[kind](), low, high).tolist()]
    return {"kind": "grid", "quantiles": list(QUANTILES), "values": values}


def _two_modes(low: float, mean: float, spread: float) -> dict[str, Any]:
    """The shortest length, and one longer one, such that mean and spread come out as given."""
    share = (mean - low) ** 2 / ((mean - low) ** 2 + spread**2)
    longer = low + (mean - low) / share
    parts = [(1 - share, low), (share, longer)]
    return {
        "kind": "mixture",
        "parts": [
            {"weight": float(f"{w:.4g}"), "of": {"kind": "constant", "value": float(f"{v:.6g}")}} for w, v in parts
        ],
    }
