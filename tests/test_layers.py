"""Who may import whom: one direction, from facts to answers, and the heavy libraries each in its own room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    "units", "glossary", "errors", "json_text", "whole_file", "source", "progress", "measurements",
    "hardware", "llm", "hugging_face", "parallelism", "kv_format", "engine_spec", "prices", "api_tiers",
    "kernel_tables", "measured", "efficiency",
    "slo", "workload", "catalog", "calibrations", "importers", "memory", "steptime", "calibrate", "stats", "queueing",
    "estimate", "scenario", "sim", "metrics", "cost", "experiment", "sizing", "validate", "model_error", "store",
    "capacity", "sweep", "breakeven", "levers", "claims", "contract", "tiers", "compare", "charts", "report", "api",
    "jobs", "cli", "pages",
)  # fmt: skip
ONLY_IN = {
    "simpy": "sim", "distributed": "sweep", "altair": "charts", "streamlit": "pages",
    "torch": "", "triton": "", "mlx": "",
}  # fmt: skip
FILES = sorted((ROOT / "capsim").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([f"capsim.{a.name}" for a in node.names] if node.module == "capsim" else [node.module])


def room(path):
    return path.relative_to(ROOT / "capsim").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    assert here in LAYERS
    for name in imports(path):
        parts = name.split(".")
        assert here == ONLY_IN.get(parts[0], here), f"{parts[0]} belongs in {ONLY_IN[parts[0]] or 'kernels_bench'}"
        if parts[0] == "capsim" and len(parts) > 1 and parts[1] in LAYERS:
            assert LAYERS.index(parts[1]) <= LAYERS.index(here), f"{here} must not import {parts[1]}"


def test_kernels_bench_does_not_import_capsim():
    for path in (ROOT / "kernels_bench").rglob("*.py"):
        assert not any(name.split(".")[0] == "capsim" for name in imports(path))


def test_files_hold_one_idea():
    assert [str(path) for path in FILES if len(path.read_text().splitlines()) > 400] == []
