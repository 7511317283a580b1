"""``llama-bench -o json`` (or jsonl) as engine steps.

A prompt of n tokens is computed in micro-batches of ``n_ubatch``, n tokens are generated in n steps over a context
that grows from ``n_depth``. One row stands for the mean step of a test: a fit to whole steps is linear in what they do.
"""

import json
from math import ceil
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError
from capsim.importers.imported import Imported, reading

NS = 1e-9
ENGINE = "llama.cpp"
NEEDED = ("n_prompt", "n_gen", "n_ubatch", "avg_ns", "model_type", "test_time")


def import_llama_bench(paths: list[Path], device: str | None = None, model: str | None = None) -> Imported:
    """Steps of one model on one device.

    Parameters
    ----------
    device, model
        Keys of the catalog, where the names that llama-bench prints are none.

    Raises
    ------
    ScenarioError
        Not llama-bench's output, or of several models.
    """
    tests = [(path, test) for path in paths for test in _tests(path)]
    names = sorted({str(test["model_type"]) for _, test in tests})
    if len(names) > 1:
        raise ScenarioError.one(f"tests of several models: {', '.join(names)}", path=paths[0], hint="import each alone")
    first = tests[0][1]
    chip = device or str(first.get("gpu_info") or first.get("cpu_info") or "unknown")
    found = Imported.of(
        chip, f"llama-bench {first.get('build_commit', '')}".strip(), max(str(test["test_time"]) for _, test in tests),
        engine=ENGINE, model_type=names[0], kv=f"{first.get('type_k', 'f16')}/{first.get('type_v', 'f16')}",
        backends=first.get("backends"), threads=first.get("n_threads"),
    )  # fmt: skip
    for episode, (path, test) in enumerate(tests):
        if test["n_prompt"] and test["n_gen"]:
            found.left_out["a prompt and its generation in one time"] += 1
        else:
            told = {"kind": "step", "engine": ENGINE, "model": model or names[0], "episode": episode}
            with reading(path):
                found.rows.append({**told, **_step(test)})
    return found


def _step(test: dict[str, Any]) -> dict[str, Any]:
    """The mean step of one test."""
    prompt, generated, depth = int(test["n_prompt"]), int(test["n_gen"]), int(test.get("n_depth", 0))
    steps = generated or ceil(prompt / int(test["n_ubatch"]))
    return {
        "decode_sequences": 1 if generated else 0,
        "kv_tokens": depth + (generated + 1) / 2 if generated else 0.0,
        "prefill_tokens": round(prompt / steps),
        "prefill_reads": prompt * (depth + prompt / 2) / steps,
        "prefills": 1 if prompt else 0,
        "active_experts": None,
        "step_s": float(test["avg_ns"]) * NS / steps,
    }


def _tests(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        whole = text.lstrip().startswith("[")
        tests = json.loads(text) if whole else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        hint = "run llama-bench with -o json"
        raise ScenarioError.one(f"not JSON: {error}", path=path, hint=hint) from error
    for number, test in enumerate(tests, 1):
        if not isinstance(test, dict) or (missing := [key for key in NEEDED if key not in test]):
            lacking = "is no test" if not isinstance(test, dict) else f"lacks {', '.join(missing)}"
            raise ScenarioError.one(f"test {number} {lacking}", path=path)
    if not tests:
        raise ScenarioError.one("holds no test", path=path)
    return tests
