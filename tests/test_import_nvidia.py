"""NVIDIA's kernel tables as measurements: what their rows mean, and each trap in them."""

import nvidia_package as made
import pytest

from capsim.errors import ScenarioError
from capsim.importers import import_nvidia, nvidia_tables
from capsim.measurements import read_measurements

GEMM = ("gemm", "vllm", "gemm")
DECODE, PREFILL = ("attention", "vllm", "generation_attention"), ("attention", "vllm", "context_attention")
MOE, CUSTOM = ("moe", "vllm", "moe"), ("comm", "vllm", "custom_allreduce")
NCCL = ("comm", "nccl", "nccl")


@pytest.fixture
def imported(tmp_path):
    """The rows that come of made tables, read back as a measurements file reads them."""

    def read(tables, engine="vllm"):
        root = made.write(tmp_path, {GEMM: [made.gemm()], **tables})
        found = import_nvidia("h100-sxm", engine, root)
        path = tmp_path / "h100.jsonl"
        found.write(path)
        return read_measurements(path), found.left_out

    return read


def rows(measurements, op):
    return [row for row in measurements.kernels if row.op == op]


def test_header_names_device_engine_and_source(imported):
    header = imported({})[0].header
    assert (header.device, header.environment["engine"], header.environment["version"]) == (
        "h100-sxm",
        "vllm",
        "0.24.0",
    )
    assert "aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0)" in header.source


def test_gemm_is_in_seconds_with_its_bytes_and_flops(imported):
    (row,) = rows(imported({GEMM: [made.gemm(m=16, n=4096, k=8192, dtype="fp8", ms=0.02)]})[0], "gemm")
    assert row.shape == {"tokens": 16, "in_features": 8192, "out_features": 4096, "weight_format": "fp8"}
    assert row.median_s == pytest.approx(20e-6)
    assert row.bytes == 8192 * 4096 + 2 * 16 * (8192 + 4096)
    assert row.flops == 2 * 16 * 8192 * 4096


def test_launch_bound_block_fp8_of_vllm_gives_way_to_another_engines(imported):
    tables = {
        GEMM: [made.gemm(), made.gemm(dtype="fp8_block", ms=0.0852)],
        ("gemm", "sglang", "gemm"): [made.gemm(dtype="fp8_block", ms=0.0138), made.gemm(ms=0.019)],
    }
    measured, left_out = imported(tables)
    block = [row for row in rows(measured, "gemm") if row.shape["weight_format"] == "fp8_block"]
    assert [(row.median_s, row.kernel) for row in block] == [(pytest.approx(13.8e-6), "sglang 0.5.14")]
    assert len(rows(measured, "gemm")) == 2, "of the other engine only the block format is taken"
    assert sum(count for reason, count in left_out.items() if "host to launch" in reason) == 1


def test_the_fastest_of_equal_sizes_counts(imported):
    measured, left_out = imported({GEMM: [made.gemm(ms=0.03), made.gemm(ms=0.02), made.gemm(ms=0.05)]})
    assert [row.median_s for row in rows(measured, "gemm")] == [pytest.approx(20e-6)]
    assert left_out["measured faster at the same sizes"] == 2


def test_decode_reads_the_token_it_decodes_too(imported):
    (row,) = rows(imported({DECODE: [made.decode(batch=4, step=1023, kv_cache_dtype="fp8")]})[0], "decode_attention")
    assert (row.shape["sequences"], row.shape["context_tokens"], row.shape["kv_format"]) == (4, 1024, "fp8")
    assert row.bytes == 4 * 1024 * 8 * 256 + 2 * 4 * 32 * 128 * 2


def test_windows_and_other_arithmetic_are_left_out(imported):
    attention = [
        made.decode(), made.decode(window_size=128, ms=0.001), made.decode(step=31, attn_dtype="fp8"),
        made.decode(step=63, kv_cache_dtype="int8"),
    ]  # fmt: skip
    measured, left_out = imported({DECODE: attention})
    assert [row.shape["context_tokens"] for row in rows(measured, "decode_attention")] == [1024]
    assert sum(left_out.values()) == 3


def test_tables_without_windows_are_whole_contexts(imported):
    old = {key: value for key, value in made.decode().items() if key != "window_size"}
    assert len(rows(imported({DECODE: [old]})[0], "decode_attention")) == 1


def test_prefill_is_of_one_prompt_over_bf16(imported):
    attention = [
        made.prefill(new=2048), made.prefill(new=2048, batch_size=8, ms=0.5),
        made.prefill(new=4096, kv_cache_dtype="fp8"),
    ]  # fmt: skip
    (row,) = rows(imported({PREFILL: attention})[0], "prefill_attention")
    assert (row.shape["new_tokens"], row.shape["context_tokens"]) == (2048, 0)


def test_experts_are_those_of_one_rank(imported):
    (row,) = rows(imported({MOE: [made.moe(tokens=4, moe_tp_size=2, moe_ep_size=4)]})[0], "experts")
    shape = row.shape
    assert (shape["intermediate"], shape["experts"], shape["top_k"]) == (384, 32, 2)
    assert shape["active_experts"] == 8, "dealt out in turn: 4 tokens touch 8 experts, not the 7.2 of even chance"


def test_uneven_routing_counts_only_where_even_routing_is_missing(imported):
    both = [made.moe(tokens=n, ms=0.4) for n in (64, 128)]
    both += [made.moe(tokens=n, ms=0.5, distribution="power_law_1.2") for n in (64, 128)]
    only = [made.moe(tokens=64, ms=1.0, hidden_size=4096, distribution=f"power_law_{skew}") for skew in ("1.01", "1.2")]
    found = rows(imported({MOE: both + only})[0], "experts")
    assert sorted((row.shape["hidden"], row.shape["skew"], row.median_s * 1e3) for row in found) == [
        (2048, 0.0, pytest.approx(0.4)), (2048, 0.0, pytest.approx(0.4)), (4096, 1.01, pytest.approx(1.0)),
    ]  # fmt: skip


def test_uneven_routing_below_even_routing_is_a_contradiction_once_all_experts_are_busy(imported):
    def table(uneven):
        sizes = (2048, 4096, 8192)
        even = [made.moe(tokens=n, ms=n / 1000) for n in sizes]
        return even + [made.moe(tokens=n, ms=uneven * n / 1000, distribution="power_law_1.2") for n in sizes]

    sane, _ = imported({MOE: table(1.2)})
    assert len(rows(sane, "experts")) == 3
    wrong, left_out = imported({MOE: table(0.7)})
    assert rows(wrong, "experts") == []
    assert sum(count for reason, count in left_out.items() if "one of the two is wrong" in reason) == 6


@pytest.mark.parametrize(("slower", "kept"), [(0.6, 3), (1.3, 3), (2.0, 0)])
def test_a_format_that_takes_far_longer_than_bf16_is_a_kernel_that_nobody_would_choose(imported, slower, kept):
    sizes = (64, 256, 1024)
    wide = [made.moe(tokens=n, ms=0.5) for n in sizes]
    narrow = [made.moe(tokens=n, ms=0.5 * slower, moe_dtype="fp8") for n in sizes]
    measured, left_out = imported({MOE: wide + narrow})
    formats = [row.shape["weight_format"] for row in rows(measured, "experts")]
    assert (formats.count("bf16"), formats.count("fp8")) == (3, kept)
    assert sum(count for reason, count in left_out.items() if "nobody would choose" in reason) == 3 - kept


def test_a_kernel_that_contradicts_itself_keeps_its_few_tokens_where_another_is_consistent(imported):
    def kernel(name, even, uneven, sizes=(64, 2048, 4096, 8192)):
        rows = [made.moe(tokens=n, ms=even * n / 100, kernel_source=name) for n in sizes]
        skewed = {"kernel_source": name, "distribution": "power_law_1.2"}
        return rows + [made.moe(tokens=n, ms=uneven * n / 100, **skewed) for n in sizes]

    measured, _ = imported({MOE: kernel("sound", 2.0, 2.2) + kernel("odd", 1.0, 0.5)})
    times = {row.shape["tokens"]: row.median_s for row in rows(measured, "experts")}
    assert times == {64: pytest.approx(64e-5), **{n: pytest.approx(2e-5 * n) for n in (2048, 4096, 8192)}}


@pytest.mark.parametrize(("slower", "kept"), [(0.6, 3), (2.0, 0)])
def test_a_slice_that_takes_far_longer_than_the_whole_expert_is_a_kernel_that_nobody_would_choose(
    imported, slower, kept
):
    def shape(hidden, half):
        whole = [made.moe(tokens=n, ms=0.5, hidden_size=hidden) for n in (64, 256, 1024)]
        return whole + [made.moe(tokens=n, ms=half, hidden_size=hidden, moe_tp_size=2) for n in (64, 256, 1024)]

    measured, _ = imported({MOE: shape(2048, 0.5 * slower) + shape(1024, 0.3) + shape(1536, 0.3)})
    found = [(row.shape["hidden"], row.shape["intermediate"]) for row in rows(measured, "experts")]
    assert (found.count((2048, 768)), found.count((2048, 384))) == (3, kept)
    assert found.count((1024, 384)) == 3


@pytest.mark.parametrize(
    ("wide_ms", "expected"), [(0.28, {64: 0.2, 256: 0.28, 1024: 0.2}), (0.8, {64: 0.2, 1024: 0.2})]
)
def test_mxfp4_experts_take_the_faster_of_16_and_8_bit_activations(imported, wide_ms, expected):
    """At each size, unless 16 bits take so long that no engine would choose them at any."""
    wide = [made.moe(tokens=n, ms=wide_ms, moe_dtype="w4a16_mxfp4") for n in (64, 256)]
    narrow = [made.moe(tokens=n, ms=0.2, moe_dtype="w4a8_mxfp4_mxfp8") for n in (64, 1024)]
    found = rows(imported({MOE: wide + narrow})[0], "experts")
    assert {row.shape["weight_format"] for row in found} == {"mxfp4"}
    assert {row.shape["tokens"]: row.median_s * 1e3 for row in found} == pytest.approx(expected)


def test_uneven_routing_may_be_faster_while_it_touches_fewer_experts(imported):
    few = [made.moe(tokens=n, ms=0.4) for n in (16, 64)]
    few += [made.moe(tokens=n, ms=0.25, distribution="power_law_1.2") for n in (16, 64)]
    assert len(rows(imported({MOE: few})[0], "experts")) == 2


def test_rows_faster_than_memory_were_read_from_a_cache(imported):
    weights_ms = 4096 * 4096 * 2 / 3.35e12 * 1e3
    measured, left_out = imported({GEMM: [made.gemm(m=1, ms=weights_ms / 2), made.gemm(m=2, ms=weights_ms * 1.2)]})
    assert [row.shape["tokens"] for row in rows(measured, "gemm")] == [2]
    assert sum(left_out.values()) == 1


def test_rows_beyond_the_devices_arithmetic_are_left_out(imported):
    attention = [made.prefill(new=16384, ms=3.0), made.prefill(new=8192, ms=0.2)]
    measured, left_out = imported({PREFILL: attention})
    assert [row.shape["new_tokens"] for row in rows(measured, "prefill_attention")] == [16384]
    assert left_out["prefill_attention: more arithmetic than the device can do"] == 1


def test_experts_with_two_matrices_are_left_out_whole(imported):
    def at(n, share):
        touched = min(128, 8 * n)
        return made.moe(tokens=n, ms=share * touched * 3 * 2048 * 768 * 2 / 3.35e12 * 1e3 * 1.2)

    sizes = (1, 2, 4, 8, 16)
    assert len(rows(imported({MOE: [at(n, 1.0) for n in sizes]})[0], "experts")) == 5
    measured, left_out = imported({MOE: [*(at(n, 2 / 3) for n in sizes), made.moe(tokens=8192, ms=9.0)]})
    assert rows(measured, "experts") == []
    assert sum(count for reason, count in left_out.items() if "no gated experts" in reason) == 6


def test_collectives_count_elements_and_replay_graphs(imported):
    custom = [
        {"allreduce_dtype": "bfloat16", "num_gpus": 8, "message_size": 16384, "latency": ms, "kernel_source": source}
        for ms, source in ((0.0042, "vLLM_custom_graph"), (0.0289, "vLLM_custom_eager"))
    ]
    nccl = [
        {"op_name": op, "nccl_dtype": dtype, "num_gpus": 4, "message_size": 1024, "latency": ms}
        for op, dtype, ms in (("all_reduce", "half", 0.02), ("alltoall", "half", 0.01), ("all_reduce", "int8", 0.015))
    ]
    measured, _ = imported({CUSTOM: custom, NCCL: nccl})
    reduced = {row.kernel: (row.shape["bytes"], row.median_s) for row in rows(measured, "all_reduce")}
    assert reduced == {"vllm 0.24.0": (32768, pytest.approx(4.2e-6)), "nccl 2.29.2": (2048, pytest.approx(20e-6))}
    assert [row.shape["bytes"] for row in rows(measured, "all_to_all")] == [2048]


def test_unknown_tables_name_those_that_are_there(tmp_path):
    root = made.write(tmp_path, {GEMM: [made.gemm()]})
    assert nvidia_tables(root) == [("h100-sxm", "vllm", "0.24.0")]
    with pytest.raises(ScenarioError, match="h100-sxm vllm"):
        import_nvidia("h100-sxm", "sglang", root)


def test_installed_package_has_all_devices_and_sane_rates():
    pytest.importorskip("aiconfigurator_core", reason="the extra 'tables' is not installed")
    found = import_nvidia("a100-80g", "vllm")
    assert {"gemm", "decode_attention", "prefill_attention", "experts", "all_reduce"} <= {
        row["op"] for row in found.rows
    }
    assert {device for device, _, _ in nvidia_tables()} >= {
        "a100-80g", "h100-sxm", "h200-sxm", "b200", "gb200", "gb300", "l40s", "rtx-pro-6000",
    }  # fmt: skip
    gemms = [row for row in found.rows if row["op"] == "gemm"]
    assert 0.5 < max(row["flops"] / row["median_s"] for row in gemms) / 312e12 < 1.05
    assert 0.5 < max(row["bytes"] / row["median_s"] for row in gemms) / 2039e9 < 1.05
