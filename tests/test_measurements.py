"""Measurements files: what is read, what is dropped, and what is refused with its place."""

import json

import pytest

from capsim.errors import ScenarioError
from capsim.measurements import read_measurements

HEADER = {
    "schema": "capsim-measurements", "version": 1, "device": "cpu", "created": "2026-11-24T10:00:00Z",
    "environment": {"threads": 1}, "source": "kernels_bench 0.1.0",
}  # fmt: skip
KERNEL = {
    "kind": "kernel", "op": "norm", "backend": "cpu", "kernel": "numba", "shape": {"tokens": 8, "hidden": 64},
    "median_s": 1e-5, "iqr_s": 1e-7, "runs": 9, "repeated_windows": 0, "bytes": 1024, "flops": 2048,
}  # fmt: skip
STEP = {
    "kind": "step", "engine": "vllm", "model": "m", "decode_sequences": 2, "kv_tokens": 50, "prefill_tokens": 0,
    "prefill_reads": 0, "prefills": 0, "active_experts": None, "step_s": 0.01, "episode": 1,
}  # fmt: skip
MODEL = {"kind": "model", "engine": "vllm", "name": "m", "config": {"model_type": "llama"}, "engine_args": {}}
RUN = {
    "kind": "run", "run": 1, "engine": "vllm", "model": "m", "load": "burst", "rate_per_s": None, "seed": 1,
    "repeat": 0, "steps": 9, "preemptions": 0, "duration_s": 2.5,
}  # fmt: skip
REQUEST = {
    "kind": "request", "run": 1, "request": 0, "arrival_s": 0.0, "prompt_tokens": 5, "output_tokens": 3,
    "first_token_s": 0.1, "finished_s": 0.2, "preemptions": 0,
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(*rows, end="\n"):
        path = tmp_path / "kernels.jsonl"
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + end)
        return path

    return write


def problems(path):
    with pytest.raises(ScenarioError) as caught:
        read_measurements(path)
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_every_kind_of_row_is_read(write):
    found = read_measurements(write(HEADER, KERNEL, STEP, MODEL, RUN, REQUEST))
    assert found.header.device == "cpu"
    assert [len(rows) for rows in (found.kernels, found.steps, found.models, found.runs, found.requests)] == [1] * 5
    assert found.kernels[0].size("tokens") == 8


def test_a_cut_last_line_is_dropped(write):
    assert len(read_measurements(write(HEADER, KERNEL, json.dumps(KERNEL)[:40], end="")).kernels) == 1


def test_every_bad_row_is_named_with_its_line(write):
    wrong_op, no_shape = {**KERNEL, "op": "gem"}, {**KERNEL, "shape": {"tokens": 8}}
    endless = {**KERNEL, "median_s": 0}
    found = problems(write(HEADER, wrong_op, KERNEL, no_shape, "{not json", {"kind": "kernal"}, endless))
    assert [text.split(" ")[0] for text in found] == [":2:", ":4:", ":5:", ":6", ":7"]
    assert "did you mean 'gemm'?" in found[0]
    assert "lacks hidden" in found[1]
    assert "did you mean 'kernel'?" in found[3]
    assert "median_s: must be > 0" in found[4]


@pytest.mark.parametrize("first", [KERNEL, "[]", "nonsense", ""])
def test_a_file_without_a_header_is_refused(write, first):
    assert "expected a header" in problems(write(first, KERNEL))[0]


def test_another_version_is_refused(write):
    assert "version" in problems(write({**HEADER, "version": 2}))[0]
