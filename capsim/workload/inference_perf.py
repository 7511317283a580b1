"""Workload profiles of kubernetes-sigs/inference-perf: lengths, turns and pauses from means, spreads and bounds."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy.special import ndtri

from capsim.errors import ScenarioError
from capsim.workload.chats import MAX_REQUESTS
from capsim.workload.distributions import MAX_TOKENS, Distribution, draw_tokens
from capsim.workload.fit_lengths import QUANTILES
from capsim.workload.streams import stream

MAX_BYTES = 1_000_000
MAX_MS = 1e9
TAIL = 1e-6
SAMPLE = 100_000
ASSUMED_RATE_PER_S = 1.0
SHORTEST_S = 1e-3
SLO_KEY = re.compile(r"(ttft|itl|tpot|e2e)_p(\d+)_ms$")
THRESHOLDS = {"ttft": "ttft_s", "itl": "tpot_s", "tpot": "tpot_s", "e2e": "e2e_s"}


def is_profile(path: Path) -> bool:
    """Whether a file is such a profile, and no trace."""
    return path.suffix == ".json" and path.is_file() and "input_sequence_length" in _document(path)


def read_profile(path: Path) -> dict[str, Any]:
    """A workload's values, and the profile's latency targets as its ``slo``.

    The system prompt stands before the input of a session's first request, and what each turn adds follows, as
    inference-perf's own configuration of its code-generation profile reads these fields. A profile says nothing of
    when sessions come (about one request a second stands for it), nor of what a context does that reaches the longest
    input: it is cut to one of mean length.

    Raises
    ------
    ScenarioError
        A length lacks a value, or has a distribution that is not known; a target is not a number.
    """
    profile = _document(path)
    shared = _shared_tokens(profile, path)
    turns = _session(profile, shared, path)
    rate_per_s = ASSUMED_RATE_PER_S / (_mean_turns(turns["session"]["turns"]) if turns else 1.0)
    slo = _slo(profile, path)
    return {
        "arrival": {"kind": "poisson", "rate_per_s": float(f"{rate_per_s:.4g}")},
        "prompt_tokens": _distribution(profile, "input_sequence_length", path, longer=shared),
        "output_tokens": _distribution(profile, "output_sequence_length", path),
        **turns,
        **({"prefix": {"global_tokens": round(shared)}} if shared else {}),
        **({"slo": slo} if slo else {}),
    }


def _shared_tokens(profile: dict[str, Any], path: Path) -> float:
    """The system prompt's mean; every profile so far has one of constant length, or none."""
    if "system_prompt" not in profile:
        return 0.0
    mean = _numbers(profile, "system_prompt", path)["mean"]
    if not 0 <= mean <= MAX_TOKENS:
        raise ScenarioError.one(f"not a number of tokens: {mean:g}", path=path, key="system_prompt")
    return mean


def _session(profile: dict[str, Any], shared: float, path: Path) -> dict[str, Any]:
    """Turns, what they add and the pauses between them; nothing where there is one, or what they add is not said."""
    if profile.get("multi_turn") is not True:
        return {}
    longest = _numbers(profile, "input_sequence_length", path)
    return {
        "think_s": _distribution(profile, "time_between_turns", path, least=SHORTEST_S),
        "session": {
            "turns": _distribution(profile, "number_of_turns", path),
            "new_tokens": _distribution(profile, "input_sequence_length_per_turn", path),
            "compaction": {"at_tokens": round(longest["max"] + shared), "to_tokens": round(longest["mean"] + shared)},
        },
    }


def _mean_turns(turns: dict[str, Any]) -> float:
    """The mean of what is drawn, which bounds may keep far from the mean that the profile states."""
    drawn: Distribution = TypeAdapter(Distribution).validate_python(turns)
    return float(draw_tokens(drawn, stream(0, 0, "turns").random((SAMPLE, 2))).clip(max=MAX_REQUESTS).mean())


def _document(path: Path) -> dict[str, Any]:
    """The file's JSON object; empty where it is none, or too large to be a profile."""
    if path.stat().st_size > MAX_BYTES:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _slo(profile: dict[str, Any], path: Path) -> dict[str, float]:
    """The targets as thresholds of a request, all of them attained by the largest of the shares that they name.

    With a smaller one, a target of the largest share could be missed unseen: capsim has one share for all. ITL targets,
    which the profiles derive from MLPerf's times per output token, hold for TPOT; capsim's ``itl_s`` is a request's
    longest gap.
    """
    metadata = profile.get("metadata", {})
    slos = metadata.get("slos", {}) if isinstance(metadata, dict) else None
    if not isinstance(slos, dict):
        raise ScenarioError.one("expected latency targets by their names", path=path, key="metadata.slos")
    thresholds: dict[str, float] = {}
    shares = []
    for name, target_ms in slos.items():
        if found := SLO_KEY.match(name):
            if isinstance(target_ms, bool) or not isinstance(target_ms, (int, float)) or not 0 < target_ms < MAX_MS:
                message = f"expected milliseconds (got {target_ms!r})"
                raise ScenarioError.one(message, path=path, key=f"metadata.slos.{name}")
            threshold = THRESHOLDS[found[1]]
            thresholds[threshold] = min(target_ms / 1000, thresholds.get(threshold, np.inf))
            shares.append(_share(found[2]))
    return {**thresholds, "attained": max(shares)} if thresholds else {}


def _share(percentile: str) -> float:
    """0.99 of ``99``, 0.999 of ``999``: a p99.9 has no room for its point in the name of a target."""
    return float(f"0.{percentile}") if len(percentile) > 2 and percentile != "100" else int(percentile) / 100


def mixed_shares(path: Path) -> list[str]:
    """A note where a profile's targets name different shares, of which the largest holds for all."""
    metadata = _document(path).get("metadata", {})
    names = metadata.get("slos", {}) if isinstance(metadata, dict) else {}
    shares = {_share(found[2]) for name in names if (found := SLO_KEY.match(name))}
    if len(shares) < 2:
        return []
    named = ", ".join(f"{share:.5g}" for share in sorted(shares))
    return [f"the profile's targets are for shares of {named} of requests: slo.attained is the largest, for all"]


def _numbers(profile: dict[str, Any], key: str, path: Path) -> dict[str, float]:
    """Bounds, mean and spread of one of the profile's distributions."""
    given = profile.get(key, {})
    try:
        numbers = {name: float(given[name]) for name in ("min", "max", "mean", "standard_deviation")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ScenarioError.one("needs min, max, mean and standard_deviation", path=path, key=key) from error
    if not np.isfinite(list(numbers.values())).all():
        raise ScenarioError.one(f"not finite: {numbers}", path=path, key=key)
    return numbers


def _distribution(
    profile: dict[str, Any], key: str, path: Path, *, least: float = 1.0, longer: float = 0.0
) -> dict[str, Any]:
    """Quantiles of the profile's distribution, cut to its bounds as inference-perf cuts its draws, and made longer."""
    low, high, mean, spread = _numbers(profile, key, path).values()
    low = max(low, least)
    if not low <= mean <= high <= MAX_TOKENS:
        raise ScenarioError.one("mean must lie between min and max", path=path, key=key)
    if not 0 <= spread <= MAX_TOKENS:
        raise ScenarioError.one(f"not a standard_deviation: {spread:g}", path=path, key=key)
    low, high, mean = low + longer, high + longer, mean + longer
    kind = str(profile[key].get("distribution_type", "log_normal"))
    if spread == 0 or mean == low:
        return {"kind": "constant", "value": mean}
    if kind == "bimodal":
        return _two_modes(low, mean, spread)
    if kind == "uniform":
        return {"kind": "uniform", "low": low, "high": high}
    quantiles = np.clip(QUANTILES, TAIL, 1 - TAIL)
    sigma = float(np.sqrt(np.log1p((spread / (mean - low)) ** 2)))
    drawn = {
        "normal": lambda: mean + spread * ndtri(quantiles),
        "log_normal": lambda: low + (mean - low) * np.exp(sigma * ndtri(quantiles) - sigma**2 / 2),
        "exponential": lambda: low - (mean - low) * np.log1p(-quantiles),
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
