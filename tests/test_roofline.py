"""The step-time model against the published ITL lines it is fitted on, and its own limits."""

import pytest

from capsim.catalog import load_catalog
from capsim.parallelism import Parallelism
from capsim.steptime import Batch, PrefillChunk
from capsim.steptime.roofline import Roofline

CATALOG = load_catalog()


def roofline(model, weights, kv, device, layout=None):
    return Roofline(
        CATALOG.models[model], CATALOG.weight_formats[weights], CATALOG.kv_formats[kv], CATALOG.devices[device],
        layout or Parallelism(1), CATALOG.calibrations[f"{device}/vllm"],
    )  # fmt: skip


def decode(model, sequences, context):
    return Batch(sequences, tuple(sequences * s.read(context) for s in CATALOG.models[model].streams))


# vLLM blog 2026-04-22 (points VLI01-VLI05, use: fit): intercept in ms, slope in ms per context token
ITL_LINES = [
    ("h100-sxm", "llama-3.1-8b", "bf16", "bf16", 6.44, 4.37e-5),
    ("h100-sxm", "llama-3.1-8b", "bf16", "fp8", 6.58, 2.37e-5),
    ("h100-sxm", "gpt-oss-20b", "mxfp4", "bf16", 4.03, 8.94e-6),
    ("h100-sxm", "gpt-oss-20b", "mxfp4", "fp8", 4.05, 6.34e-6),
    ("h100-sxm", "gpt-oss-20b", "mxfp4", "fp8", 4.07, 7.14e-6),
    ("b200", "llama-3.1-8b", "bf16", "bf16", 3.93, 1.80e-5),
    ("b200", "llama-3.1-8b", "bf16", "fp8", 3.96, 9.72e-6),
    ("b200", "gpt-oss-20b", "mxfp4", "bf16", 3.15, 3.56e-6),
    ("b200", "gpt-oss-20b", "mxfp4", "fp8", 3.17, 2.06e-6),
]


@pytest.mark.parametrize(("device", "model", "weights", "kv", "intercept_ms", "slope_ms"), ITL_LINES)
def test_published_itl_lines_within_ten_percent(device, model, weights, kv, intercept_ms, slope_ms):
    steps = roofline(model, weights, kv, device)
    near, far = (steps.step_time(decode(model, 1, c)).total_s * 1e3 for c in (10_000, 110_000))
    slope = (far - near) / 100_000
    assert slope == pytest.approx(slope_ms, rel=0.10)
    assert near - 10_000 * slope == pytest.approx(intercept_ms, rel=0.10)


def test_every_component_is_on_for_a_mixture_of_experts_over_eight_ranks():
    step = roofline("deepseek-v3", "fp8", "fp8", "h200-sxm", Parallelism(1, 8, True)).step_time(
        decode("deepseek-v3", 32, 4000)
    )
    assert min(step.attention_s, step.experts_s, step.dense_s, step.collectives_s, step.overhead_s) > 0


def test_a_long_prefill_is_bound_by_compute_and_a_small_decode_by_memory():
    steps = roofline("llama-3.1-70b", "fp8", "bf16", "h100-sxm", Parallelism(8))
    empty = tuple(0.0 for _ in CATALOG.models["llama-3.1-70b"].streams)
    prefill = steps.step_time(Batch(0, empty, (PrefillChunk(8192, 0),), 1))
    assert prefill.bound == "compute"
    one = roofline("llama-3.1-70b", "fp8", "bf16", "h200-sxm").step_time(decode("llama-3.1-70b", 8, 4000))
    assert one.bound == "memory"


def test_prefill_in_chunks_costs_the_same_attention_arithmetic_as_in_one():
    steps = roofline("llama-3.1-8b", "bf16", "bf16", "h100-sxm")
    streams = CATALOG.models["llama-3.1-8b"].streams
    whole = sum(s.prefill_reads(8000, 0) for s in streams)
    parts = sum(s.prefill_reads(1000, 1000 * i) for i in range(8) for s in streams)
    assert parts == pytest.approx(whole, rel=1e-12)
    assert steps.step_time(Batch(0, (0.0,), (PrefillChunk(8000, 0),), 1)).total_s > 0.1


def test_wider_batches_touch_more_experts_until_all_are_read():
    steps = roofline("qwen3-30b-a3b", "bf16", "bf16", "h100-sxm")
    one, many, most = (steps.step_time(decode("qwen3-30b-a3b", n, 1000)).experts_s for n in (1, 32, 256))
    assert one < many < most
    assert most / one == pytest.approx(128 / 8, rel=0.15)


def test_experts_see_the_tokens_of_all_replicas_that_share_them():
    """A lone sequence among seven idle replicas touches eight experts, not as many as if all were like it."""
    model, layout = CATALOG.models["deepseek-v3"], Parallelism(1, 8, expert=True)
    steps = roofline("deepseek-v3", "fp8", "bf16", "h100-sxm", layout)
    alone, like_it = decode("deepseek-v3", 1, 1000)._replace(expert_tokens=1), decode("deepseek-v3", 1, 1000)
    touched = [model.experts.touched(tokens) for tokens in (1, 8)]
    ratio = steps.step_time(like_it).experts_s / steps.step_time(alone).experts_s
    assert ratio == pytest.approx(touched[1] / touched[0], rel=0.01)
    assert steps.step_time(like_it._replace(expert_tokens=8)) == steps.step_time(like_it)


def exchanged(layout, weights="fp8", tokens=64):
    """Seconds of collectives beyond their calls in a step of so many sequences on each replica."""
    steps = roofline("deepseek-v3", weights, "fp8", "h200-sxm", layout)
    one, many = (steps.step_time(decode("deepseek-v3", n, 1000)).collectives_s for n in (1, 1 + tokens))
    return many - one


def test_replicas_that_share_experts_gather_all_tokens_and_scatter_their_sums():
    model, device = CATALOG.models["deepseek-v3"], CATALOG.devices["h200-sxm"]
    link = device.link_bytes_per_s * CATALOG.calibrations["h200-sxm/vllm"].link_fraction
    moved = 64 * 7 * model.hidden * model.experts.layers  # of seven others, each with 64 tokens more
    assert exchanged(Parallelism(1, 8, expert=True)) == pytest.approx(moved * (1 + 2) / link)
    assert exchanged(Parallelism(1, 8, expert=True), "fp8_block") == pytest.approx(moved * (2 + 2) / link)


def test_experts_spread_over_the_ranks_of_one_replica_exchange_no_more_than_its_all_reduces():
    assert exchanged(Parallelism(8, expert=True)) == exchanged(Parallelism(8))
