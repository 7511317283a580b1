"""Step times from measured kernels: the sum of what the kernels take, along runs, at other shapes, on other devices."""

import measured_kernels as machine
import pytest
from clusters import arrivals, cluster
from plain_engine import plain_records

from capsim.calibrate.tables import grouped, table_of, tables_of
from capsim.calibrations import shipped
from capsim.catalog import load_catalog
from capsim.efficiency import Efficiency
from capsim.hardware import Device
from capsim.llm import Attention, DenseLayers, Experts, ModelSpec
from capsim.measured import Measured
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.steptime import FOREVER, Batch, PrefillChunk
from capsim.steptime.calibrated import Calibrated
from capsim.steptime.carried import Carried, nearest
from capsim.steptime.domain import prefill_behind

CATALOG = load_catalog()
CPU = Device(name="cpu", kind="cpu", memory_bytes=24e9, memory_bytes_per_s=13e9, bf16_flops=1e12, power_w=0)
TABLES = tuple(table_of(group, CATALOG) for group in grouped(machine.rows()))
LAYERS = 8
ALONE = Parallelism(1)
ATTENTION = Attention(kind="full", layers=LAYERS, heads=32, kv_heads=8, head_dim=128)
SMALL = ModelSpec(
    name="small", hidden=2048, vocab=8192, max_context_tokens=100_000, attention=(ATTENTION,),
    dense=DenseLayers(layers=LAYERS, intermediate=4096), weight_formats=("bf16",),
)  # fmt: skip


def calibrated(model=SMALL, kv="bf16", device=CPU, tables=TABLES, layout=ALONE, **coefficients):
    fractions = {"memory_fraction": 1.0, "flops_fraction": 1.0, "layer_s": 0, "expert_layer_s": 0}
    efficiency = Efficiency(
        device="cpu", engine="vllm", step_s=1e-3, sequence_s=1e-5, **fractions, measured=Measured(kernels=tables),
        **coefficients,
    )  # fmt: skip
    return Calibrated(model, CATALOG.weight_formats["bf16"], CATALOG.kv_formats[kv], device, layout, efficiency, CPU)


def decode(sequences, context, model=SMALL, **more):
    return Batch(sequences, tuple(sequences * s.read(context) for s in model.streams), **more)


def test_a_decode_step_is_the_sum_of_its_kernels():
    step = calibrated().step_time(decode(4, 4096))
    attention = {"sequences": 4, "context_tokens": 4096, **machine.HEADS, "kv_format": "bf16"}
    assert step.attention_s == pytest.approx(
        LAYERS * machine.seconds("decode_attention", attention)
        + LAYERS * machine.seconds("kv_write", {"tokens": 4, "kv_heads": 8, "head_dim": 128, "kv_format": "bf16"}),
        rel=1e-6,
    )
    assert step.overhead_s == pytest.approx(1e-3 + 4e-5)
    norms = 2 * LAYERS * machine.seconds("norm", {"tokens": 4, "hidden": 2048})
    at_least = (SMALL.attention_parameters + SMALL.dense_parameters + SMALL.embedding_parameters) * 2 / 13e9
    assert at_least + norms < step.dense_s < 1.3 * at_least + norms
    assert step.bound == "memory"


@pytest.mark.parametrize(("new", "context"), [(256, 0), (256, 4096), (1024, 2000)])
def test_a_prefill_chunk_takes_its_kernel_s_time(new, context):
    step = calibrated().step_time(Batch(0, (0.0,), (PrefillChunk(new, context),), 1))
    kernel = LAYERS * machine.seconds(
        "prefill_attention", {"new_tokens": new, "context_tokens": context, **machine.HEADS}
    )
    write = {"tokens": new, "kv_heads": 8, "head_dim": 128, "kv_format": "bf16"}
    assert step.attention_s == pytest.approx(kernel + LAYERS * machine.seconds("kv_write", write), rel=1e-6)


@pytest.mark.parametrize("context", [700, 4095, 4096, 60_000, 90_000])
@pytest.mark.parametrize("sequences", [1, 3, 40])
def test_a_run_of_decode_steps_is_straight_until_the_next_knot(context, sequences):
    steps = calibrated(kv="turboquant_4bit_nc")
    batch = decode(sequences, context, read_growth=(float(sequences),))
    first, growth_s, valid = steps.decode_run(batch)
    last = min(valid, 5000) - 1
    for later in (1, last // 2, last):
        at = steps.step_time(decode(sequences, context + later))
        if later <= last:
            assert first.total_s + later * growth_s == pytest.approx(at.total_s, rel=1e-9)
    assert valid == (FOREVER if context >= 65_536 else 1 + next(k for k in machine.CONTEXTS if k > context) - context)


def test_a_compressed_format_pays_for_dequantisation_and_leaves_layers_in_bf16():
    plain, packed = (
        calibrated(kv=kv).step_time(decode(1, 32_768)).attention_s for kv in ("bf16", "turboquant_4bit_nc")
    )
    assert (plain, packed) == pytest.approx(
        [
            sum(layers * machine.seconds("decode_attention", {"sequences": 1, "context_tokens": 32_768, **machine.HEADS,
                                                             "kv_format": kv}) for kv, layers in parts)
            for parts in ([("bf16", 8)], [("bf16", 4), ("turboquant_4bit_nc", 4)])
        ],
        rel=0.01,
    )  # fmt: skip


def test_another_shape_is_carried_over_in_utilisation():
    """Half the KV heads read half the bytes; the device is bound by memory."""
    narrow = SMALL.model_copy(update={"attention": (ATTENTION.model_copy(update={"kv_heads": 4}),)})
    whole, half = (calibrated(model=m).step_time(decode(1, 32_768, m)).attention_s for m in (SMALL, narrow))
    assert half / whole == pytest.approx(0.5, rel=0.1)
    assert calibrated().kernels.unmeasured == []
    assert not calibrated().kernels.is_exact  # its GEMMs are not those of the model


def test_a_kernel_with_a_key_that_the_model_lacks_is_another_s():
    """A table of windowed attention is no table of full attention, however near its heads are."""
    windowed = [
        t.model_copy(update={"shape": {**t.shape, "window_tokens": 128}}) for t in TABLES if "head_dim" in t.shape
    ]
    assert "prefill attention" in calibrated(tables=windowed).kernels.unmeasured


def test_another_device_is_carried_over_by_its_datasheet():
    """Twice the rates halve all but the calls, such as a decode and a write a layer."""
    faster = CPU.model_copy(update={"memory_bytes_per_s": 26e9, "bf16_flops": 2e12})
    here, there = (calibrated(device=d).step_time(decode(4, 8192)) for d in (CPU, faster))
    calls_s = LAYERS * machine.CALL_S
    assert there.attention_s == pytest.approx(here.attention_s / 2 + 2 * calls_s / 2, rel=1e-6)
    assert here.dense_s / 2 < there.dense_s < here.dense_s
    assert there.overhead_s == here.overhead_s


def test_another_shape_takes_as_long_to_call():
    """A matrix and an attention of other shapes, held against the machine's own times for them."""
    tables = tables_of(grouped(machine.rows()), CATALOG)
    wanted = {"in_features": 512.0, "out_features": 1024.0, "weight_bytes": 2.0}
    near = nearest(tables, "gemm", wanted, {"weight_format": ("bf16",)})
    carried = Carried(near, wanted, CPU, CPU)
    for tokens in (1, 64, 2048):
        true = machine.seconds("gemm", {"tokens": tokens, **wanted, "weight_format": "bf16"})
        assert carried.seconds(tokens)[0] == pytest.approx(true, rel=1e-3)
    heads = {"q_heads": 4, "kv_heads": 1, "head_dim": 128, "pair_bytes": 512.0}
    near = nearest(tables, "decode_attention", heads, {"kv_format": ("bf16",)})
    line = Carried(near, heads, CPU, CPU).along_context(4)
    for context in (512, 65536):
        shape = {"sequences": 4, "context_tokens": context, **heads, "kv_format": "bf16"}
        assert line.at(context)[0] == pytest.approx(machine.seconds("decode_attention", shape), rel=1e-3)


def test_what_was_not_measured_is_the_roofline_s_and_says_so():
    steps = calibrated(kv="turboquant_3bit_nc", tables=[t for t in TABLES if t.op != "gemm"])
    assert steps.kernels.unmeasured == [
        "decode attention over turboquant_3bit_nc KV (full)", "writing turboquant_3bit_nc KV", "dense layers",
    ]  # fmt: skip
    step = steps.step_time(decode(1, 8192))
    assert step.dense_s > 0
    assert step.attention_s > 0


def test_experts_follow_those_touched():
    mixture = CATALOG.models["qwen3-30b-a3b"]
    steps = calibrated(model=mixture)
    one, many = (steps.step_time(decode(n, 512, mixture)).experts_s for n in (1, 256))
    assert many / one == pytest.approx(128 / 8, rel=0.25)


@pytest.mark.parametrize("layout", [Parallelism(8), Parallelism(1, 8, expert=True)])
def test_a_rank_takes_the_time_of_its_share_of_the_experts(layout):
    """A slice of each expert, or some of the experts and of each token's: both take as long to call as whole ones."""
    mixture = CATALOG.models["qwen3-30b-a3b"]
    steps = calibrated(model=mixture, layout=layout)
    tokens = 64
    share = {"intermediate": 768 / 8} if layout.tp > 1 else {"experts": 16, "top_k": 1}
    whole = {"hidden": 2048, "intermediate": 768, "experts": 128, "top_k": 8, "shared_experts": 0, "skew": 0.0}
    shape = {**whole, **share, "tokens": tokens, "weight_format": "bf16"}
    found = steps.step_time(decode(tokens, 512, mixture, expert_tokens=tokens)).experts_s
    assert found == pytest.approx(48 * machine.seconds("experts", shape), rel=0.01)


def test_the_heaviest_rank_computes_more_and_reads_no_more():
    mixture = CATALOG.models["qwen3-30b-a3b"]
    even, uneven = (
        calibrated(model=mixture, layout=Parallelism(1, 8, expert=True), expert_imbalance=ranks)
        for ranks in ({1: 1.0}, {1: 1.0, 8: 2.0})
    )
    few, many = (
        uneven.step_time(decode(n, 512, mixture)).experts_s / even.step_time(decode(n, 512, mixture)).experts_s
        for n in (1, 100_000)
    )
    assert few < 1.1
    assert 1.8 < many < 2


def test_windows_and_latents_have_times_too():
    for key in ("gemma-3-27b", "deepseek-v3", "qwen3.5-27b"):
        model = CATALOG.models[key]
        step = calibrated(model=model).step_time(decode(2, 3000, model)._replace(prefill=(PrefillChunk(2048, 512),)))
        assert step.attention_s > 0


def test_what_lies_beyond_the_domain_is_named():
    steps = calibrated()
    assert steps.beyond({1: 65_536, 16: 65_536}, 2048) == []
    how = "the fitted sum-roofline extends it"
    assert steps.beyond({17: 200, 1: 200_000}, 4096) == [
        f"batches of 17 lie beyond the measured 16: {how}",
        f"context 200,000 of one sequence lies beyond the measured 65,536: {how}",
        f"steps of 4,096 tokens lie beyond the measured 2,048: {how}",
    ]


def test_experts_that_several_replicas_share_are_beyond_their_domain_sooner():
    mixture = CATALOG.models["qwen3-30b-a3b"]
    alone, shared = (calibrated(model=mixture, layout=layout) for layout in (ALONE, Parallelism(1, 4, expert=True)))
    assert alone.beyond({1: 512}, 1024) == []
    (note,) = shared.beyond({1: 512}, 1024)
    assert note.startswith("steps whose experts see 4,096 tokens lie beyond the measured 2,048")


def test_the_longest_context_depends_on_the_batch():
    short = [
        r
        for r in machine.rows()
        if r.op != "decode_attention" or r.size("sequences") * r.size("context_tokens") <= 65_536
    ]
    steps = calibrated(tables=[table_of(group, CATALOG) for group in grouped(short)])
    assert steps.beyond({1: 65_536, 16: 4096}, 1) == []
    assert (
        "context 20,000 of a batch of 16 lies beyond the measured 4,096" in steps.beyond({1: 65_536, 16: 20_000}, 1)[0]
    )


def test_what_lies_below_the_domain_is_named_where_all_of_a_run_does():
    large = [row for row in machine.rows() if row.op != "decode_attention"
             or (row.size("sequences") > 1 and row.size("context_tokens") > 1024)]  # fmt: skip
    large = [row for row in large if row.op != "gemm" or row.size("tokens") > 8]
    steps = calibrated(tables=[table_of(group, CATALOG) for group in grouped(large)])
    how = "the fitted sum-roofline extends it"
    assert steps.beyond({4: 300.0, 16: 5000.0}, 512) == [f"steps of 4 tokens lie below the measured 16: {how}"]
    assert steps.beyond({1: 300.0, 16: 1000.0}, 512)[:2] == [
        f"batches of 1 lie below the measured 4: {how}",
        f"context 1,000 of a batch of 16 lies below the measured 2,048: {how}",
    ]


def test_a_cluster_on_tables_goes_as_the_plain_loop_does_step_by_step():
    """Contexts cross knots while they decode: a run of steps ends there, and nothing else changes."""
    spec = cluster(
        model=calibrated(kv="turboquant_4bit_nc"), streams=SMALL.streams, kv_blocks=400, max_num_batched_tokens=512
    )
    times, lengths = [0.0, 3.0, 5.0, 60.0], [(400, 700), (900, 300), (30, 90), (480, 64)]
    made = [run(spec, arrivals(times, lengths)) for run in (simulate, plain_records)]
    ours, plain = (records.requests_table()["finished_s"].to_numpy() for records in made)
    assert ours == pytest.approx(plain, rel=1e-12)
    runs, steps = (len(records.segments_table()) for records in made)
    assert runs < steps / 20


def test_a_factor_on_kernels_lengthens_them_and_a_run_s_growth_alike():
    plain, slower = calibrated(), calibrated(kernel_factor=1.25)
    batch = decode(4, 1000, read_growth=(4.0,))
    (alone, growth_s, valid), (whole, more_s, steps) = plain.decode_run(batch), slower.decode_run(batch)
    assert whole.attention_s == pytest.approx(1.25 * alone.attention_s)
    assert whole.dense_s == pytest.approx(1.25 * alone.dense_s)
    assert whole.overhead_s == alone.overhead_s
    assert (more_s, steps) == (pytest.approx(1.25 * growth_s), valid)
    assert slower.kernels.is_exact == plain.kernels.is_exact


def test_a_prefill_of_a_mixture_takes_at_least_its_launches_and_a_dense_one_is_left_alone():
    mixture = SMALL.model_copy(
        update={"dense": None, "experts": Experts(layers=LAYERS, count=16, top_k=2, intermediate=512)}
    )
    short, long = (Batch(0, (0.0,), (PrefillChunk(new, 0),), 1) for new in (16, 4096))
    for model in (mixture, SMALL):
        floored, plain = (calibrated(model, prefill_expert_layer_s=least) for least in (0.1, 0.0))
        expected = max(LAYERS * 0.1, plain.step_time(short).total_s) if model is mixture else None
        assert floored.step_time(short).total_s == pytest.approx(expected or plain.step_time(short).total_s)
        assert floored.step_time(long).total_s == pytest.approx(plain.step_time(long).total_s)
        assert floored.step_time(decode(4, 1000, model)) == plain.step_time(decode(4, 1000, model))


def test_prefill_that_reads_earlier_context_warns_where_it_was_measured_without():
    with_context = calibrated().efficiency.measured
    assert prefill_behind(with_context, 0.5, True) == []
    without = with_context.model_copy(update={"kernels": shipped("h100-sxm", "vllm").tables})
    assert prefill_behind(None, 0.5, True) == []
    assert prefill_behind(without, 0.0, False) == []
    (note,) = prefill_behind(without, 0.254, True)
    assert note.startswith(
        "prefill that reads cached prefixes (25% of prompt tokens) and earlier parts of its prompt was"
    )
