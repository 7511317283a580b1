"""A resolved scenario as plain data: every number a run used, with the version and the hash of what is long."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from capsim import __version__
from capsim.efficiency import Efficiency
from capsim.scenario.resolved import Resolved
from capsim.workload.traces import Trace

SCORES = {"quality", "quality_kept"}
"""How good answers are changes nothing in a run."""


def locked(resolved: Resolved) -> dict[str, Any]:
    """``scenario`` is a valid scenario again; ``resolved`` holds what its names meant."""
    specs = {
        "model": resolved.model, "weights": resolved.weights, "kv_format": resolved.kv_format, "node": resolved.node,
        "device": resolved.device, "engine": resolved.engine,
    }  # fmt: skip
    lock: dict[str, Any] = {
        "capsim": __version__,
        "scenario": resolved.scenario.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "resolved": {
            **{name: spec.model_dump(mode="json", exclude_none=True, exclude=SCORES) for name, spec in specs.items()},
            "efficiency": _efficiency(resolved.efficiency),
            "parallelism": asdict(resolved.layout),
            "memory": asdict(resolved.memory),
            "price": None if resolved.price is None else resolved.price.model_dump(mode="json", exclude_none=True),
        },
    }  # fmt: skip
    if resolved.api_tier is not None:
        lock["resolved"]["api_tier"] = resolved.api_tier.model_dump(mode="json", exclude_none=True)
    if resolved.trace is not None:
        lock["trace_sha256"] = _digest(resolved.trace)
    return lock


def _efficiency(efficiency: Efficiency) -> dict[str, Any]:
    """Coefficients, and of kernel tables, which are long, the hash."""
    values = efficiency.model_dump(mode="json", exclude_none=True)
    if efficiency.measured is not None:
        kernels = json.dumps(values["measured"].pop("kernels"), sort_keys=True)
        values["measured"]["kernels_sha256"] = hashlib.sha256(kernels.encode()).hexdigest()
    return values


def basis_of(resolved: Resolved) -> dict[str, dict[str, str]]:
    """What each part rests on: ``{part: {key, basis, source, as_of}}``."""
    return {
        part: {"key": key, "basis": fact.basis, "source": fact.source, "as_of": str(fact.as_of)}
        for part, (key, fact) in resolved.basis.items()
    }


def run_id(lock: dict[str, Any]) -> str:
    """The name of all runs of what was locked: the same version, scenario and seed have the same."""
    return hashlib.sha256(json.dumps(lock, sort_keys=True).encode()).hexdigest()[:12]


def _digest(trace: Trace) -> str:
    """SHA-256 of what a run can see of a trace: a column that a trace lacks adds nothing."""
    digest = hashlib.sha256()
    for column in (trace.arrival_s, trace.prompt_tokens, trace.output_tokens):
        digest.update(column.tobytes())
    optional = {"session": trace.session, "turn": trace.turn, "parent": trace.parent, "think_s": trace.think_s}
    if trace.prefix_hashes is not None:
        hashes = trace.prefix_hashes
        optional |= {f"hashes of {hashes.tokens} tokens": hashes.values, "offsets": hashes.offsets}
    for name, values in optional.items():
        if values is not None:
            digest.update(f"{name}, {len(values)}:".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()
