"""Measurements files: what is read, what is dropped, and what is refused with its place."""

import json
from pathlib import Path

import pytest

from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.measurements import FORMATS, SHAPES, read_measurements
from capsim.whole_file import write_whole

ROOT = Path(__file__).parents[1]
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
    assert "median_s: must be >= 1e-10" in found[4]


@pytest.mark.parametrize("first", [KERNEL, "[]", "nonsense", ""])
def test_a_file_without_a_header_is_refused(write, first):
    assert "expected a header" in problems(write(first, KERNEL))[0]


def test_another_version_is_refused(write):
    assert "version" in problems(write({**HEADER, "version": 2}))[0]


GOOD = {
    "decode_attention": {"sequences": 4, "context_tokens": 512, "q_heads": 32, "kv_heads": 8, "head_dim": 128,
                         "kv_format": "bf16"},
    "experts": {"tokens": 4, "hidden": 64, "intermediate": 32, "experts": 8, "top_k": 2, "shared_experts": 0,
                "active_experts": None, "skew": 0.0, "weight_format": "bf16"},
    "all_reduce": {"bytes": 1024, "devices": 2},
}  # fmt: skip
WRONG = [
    ("decode_attention", {"sequences": 0}, "shape.sequences must be > 0 (got 0)"),
    ("decode_attention", {"context_tokens": -5}, "shape.context_tokens must be > 0 (got -5)"),
    ("decode_attention", {"head_dim": "128"}, "shape.head_dim must be a number (got '128')"),
    ("decode_attention", {"q_heads": None}, "shape.q_heads must be a number (got None)"),
    ("decode_attention", {"kv_heads": 5}, "32 q_heads do not share 5 kv_heads evenly"),
    ("decode_attention", {"kv_format": "turboquant_4bit"}, "did you mean 'turboquant_4bit_nc'?"),
    ("decode_attention", {"kv_format": 4}, "unknown kv_format '4'"),
    ("experts", {"weight_format": "bf17"}, "did you mean 'bf16'?"),
    ("experts", {"top_k": 9}, "top_k 9 is more than the 8 experts"),
    ("experts", {"active_experts": 9}, "active_experts 9 are more than the 8 experts"),
    ("experts", {"skew": -1}, "shape.skew must be >= 0 (got -1)"),
    ("all_reduce", {"devices": 1}, "devices must be 2 or more"),
]


@pytest.mark.parametrize(("op", "change", "message"), WRONG)
def test_shapes_that_cannot_be_are_refused_with_their_line(write, op, change, message):
    row = {**KERNEL, "op": op, "shape": GOOD[op]}
    assert len(read_measurements(write(HEADER, row)).kernels) == 1
    found = problems(write(HEADER, row, {**row, "shape": {**GOOD[op], **change}}))
    assert found[0].startswith(":3: ")
    assert message in found[0]


@pytest.mark.parametrize(("key", "value"), [("median_s", 0), ("median_s", -1e-3), ("median_s", "fast"), ("bytes", -1)])
def test_times_and_sizes_that_are_none_are_refused(write, key, value):
    assert problems(write(HEADER, {**KERNEL, key: value}))[0].startswith(f":2 {key}: ")


HOSTILE = [
    ({**KERNEL, "kind": ["kernel"]}, "unknown kind '['kernel']'"),
    ("[" * 100_000 + "]" * 100_000, "not a JSON object"),
    ({**KERNEL, "shape": {"tokens": float("nan"), "hidden": 64}}, "without NaN"),
    ({**KERNEL, "shape": {"tokens": 10**400, "hidden": 64}}, "shape.tokens must be <= 1e+18"),
    ({**KERNEL, "median_s": 5e-324}, "median_s: must be >= 1e-10"),
    ({**KERNEL, "median_s": 1e308}, "median_s: must be <= 1e+07"),
]


@pytest.mark.parametrize(("row", "message"), HOSTILE)
def test_hostile_rows_are_refused_with_their_line(write, row, message):
    (found,) = problems(write(HEADER, row))
    assert found.startswith(":2")
    assert message in found


@pytest.mark.parametrize("created", ["yesterday at noon", "2026-13-45T10:00:00Z", ""])
def test_a_header_without_a_date_is_refused(write, created):
    assert "created: must begin with a date as 2026-11-24" in problems(write({**HEADER, "created": created}))[0]


def test_a_format_of_ones_own_is_named_so(write):
    row = {**KERNEL, "op": "decode_attention", "shape": {**GOOD["decode_attention"], "kv_format": "own_3bit"}}
    assert read_measurements(write(HEADER, row)).kernels[0].shape["kv_format"] == "own_3bit"


def test_the_formats_of_the_catalog_are_known():
    catalog = load_catalog()
    kernels = {name for name, spec in catalog.weight_formats.items() if spec.dense_bytes == spec.experts_bytes}
    assert kernels - set(FORMATS["weight_format"]) == set()
    assert set(catalog.kv_formats) - set(FORMATS["kv_format"]) == {"article_6x"}  # a claim, which nobody can measure


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ((KERNEL, STEP, KERNEL), 4, "the same row as in line 2"),
        ((STEP, STEP), 3, "the same row as in line 2"),
        ((RUN, {**RUN, "steps": 8}), 3, "the same run as in line 2"),
        ((MODEL, {**MODEL, "engine_args": {"max_num_seqs": 1}}), 3, "the same model as in line 2"),
        ((RUN, REQUEST, {**REQUEST, "prompt_tokens": 6}), 4, "the same request as in line 3"),
        ((REQUEST, RUN), 2, "no earlier line describes run '1'"),
        ((KERNEL, {**HEADER, "device": "h100-sxm"}), 3, "a second header"),
        ((KERNEL, {**KERNEL, "backend": "cuda"}), 3, "measured on 'cuda', but the kernels before on 'cpu'"),
        (({**STEP, "decode_sequences": 0, "kv_tokens": 0},), 2, "a step of no sequences"),
        (({**STEP, "prefills": 2, "prefill_tokens": 1},), 2, "2 prefills of 1 prefill_tokens"),
        (({**STEP, "kv_tokens": 1},), 2, "kv_tokens 1 is less than one for each decoding sequence"),
        ((RUN, {**REQUEST, "first_token_s": 0.3}), 3, "needs arrival_s <= first_token_s <= finished_s"),
    ],
)
def test_rows_that_contradict_others_or_themselves_are_refused(write, rows, line, message):
    found = problems(write(HEADER, *rows))
    assert found[0].split(" ")[0].rstrip(":") == f":{line}"
    assert message in found[0]


def test_a_kernel_measured_twice_with_different_times_is_no_mistake(write):
    assert len(read_measurements(write(HEADER, KERNEL, {**KERNEL, "median_s": 1.1e-5})).kernels) == 2


def test_the_schema_document_names_every_operation_key_and_format():
    text = (ROOT / "kernels_bench" / "SCHEMA.md").read_text()
    names = {*SHAPES, *(key for keys in (*SHAPES.values(), *FORMATS.values()) for key in keys)}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("before")

    def lines():
        yield "half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_whole(path, lines())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ScenarioError, match="cannot be written"):
        write_whole(tmp_path / "nowhere" / "file.yaml", ["x"])
