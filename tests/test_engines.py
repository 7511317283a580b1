"""What sets each engine of the catalog apart from vLLM, on loads small enough for hand arithmetic."""

import numpy as np
import pytest
from clusters import arrivals, cluster, engine_policy

from capsim.catalog import load_catalog
from capsim.kv_format import growth_bytes_per_token
from capsim.memory import BlockRule, memory_budget, weights_per_rank_bytes
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.sim.retraction import DECAY_STEPS, FIRST_SHARE, LAST_SHARE
from capsim.steptime import Batch, PrefillChunk
from capsim.steptime.roofline import Roofline
from capsim.workload.requests import OpenArrivals, Request

CATALOG = load_catalog()
PREFILL_S, DECODE_S = 10.0, 1.0


def seconds(batch):
    """A step takes ten seconds with prefill in it, one without."""
    return PREFILL_S if batch.prefill else DECODE_S


def play(key, times, lengths, **changes):
    """Requests and runs of steps of one small node under an engine."""
    records = simulate(cluster(seconds, **engine_policy(key), **changes), arrivals(times, lengths))
    return records.requests_table(), records.segments_table()


def every_gap(segments):
    return [gap for row in segments["late_gaps_s"].dropna() for gap in row]


@pytest.mark.parametrize("key", ["sglang", "mlx-lm"])
def test_prefill_has_steps_of_its_own_while_answers_stand_still(key):
    requests, segments = play(key, [0.0, 10.5], [(16, 4), (16, 4)])
    assert segments["decode_sequences"].tolist() == [0, 1, 0, 2, 1]
    assert segments["prefill_tokens"].tolist() == [16, 0, 16, 0, 0]
    assert requests["first_token_s"].tolist() == [10, 21]
    assert requests["finished_s"].tolist() == [10 + 1 + 10 + 2, 21 + 3]
    assert every_gap(segments) == [11]


def test_in_vllm_answers_go_on_in_the_step_that_prefills():
    requests, segments = play("vllm", [0.0, 10.5], [(16, 4), (16, 4)])
    assert segments["decode_sequences"].tolist() == [0, 1, 1, 2, 1]
    assert requests["finished_s"].tolist() == [10 + 1 + 10 + 1, 21 + 3]
    assert every_gap(segments) == []


def test_sglang_admits_by_what_it_expects_and_a_share_that_falls():
    """The first may ask for 999 tokens more, of which 0.7 are expected, and less with every step."""
    wanted, pool = 10 + 400, 1100
    requests, _ = play(
        "sglang", [0.0, 0.5], [(10, 1000), (10, 400)],
        kv_blocks=pool, block_rule=BlockRule(1), max_num_batched_tokens=64,
    )  # fmt: skip
    shares = [FIRST_SHARE - n * (FIRST_SHARE - LAST_SHARE) / DECAY_STEPS for n in range(100)]
    step = next(n for n, share in enumerate(shares) if wanted < pool - 10 - n - (999 - n) * share)
    assert step > 0
    assert requests["first_scheduled_s"].tolist() == [0, PREFILL_S + step * DECODE_S]


def test_sglang_counts_a_prompt_once():
    """400 tokens of the second prompt and 10 of its answer fit beside 400 and 10 of the first, prefilled together."""
    requests, _ = play(
        "sglang", [0.0, 0.0], [(400, 10), (400, 10)],
        kv_blocks=1000, block_rule=BlockRule(1), max_num_batched_tokens=8192,
    )  # fmt: skip
    assert requests["first_token_s"].tolist() == [PREFILL_S, PREFILL_S]


def test_sglang_retracts_the_one_with_the_fewest_tokens_to_the_end_of_the_queue():
    times, lengths = [0.0, 10.5, 30.0], [(10, 60), (14, 60), (10, 20)]
    pool = {"kv_blocks": 126, "block_rule": BlockRule(1), "max_num_seqs": 2}
    requests, segments = play("sglang", times, lengths, max_num_batched_tokens=64, **pool)
    assert requests["preemptions"].tolist() == [0, 1, 0]
    assert segments["kv_blocks_end"].max() >= 125
    assert requests["first_scheduled_s"].iloc[2] < requests["finished_s"].iloc[1]
    stalls = requests["stalls_s"].map(len).tolist()
    assert stalls == [0, 1, 0]


def test_who_lacks_a_block_stands_still_and_the_youngest_is_sent_back_until_somebody_ends():
    """Seven blocks: after 16 steps the first of three takes the last one, the third goes, the second waits a step."""
    policy = {"reserve": "chunk", "kv_blocks": 7}
    records = simulate(cluster(seconds, **policy), arrivals([0.0] * 3, [(16, 20)] * 3))
    requests, segments = records.requests_table(), records.segments_table()
    assert requests["preemptions"].tolist() == [0, 0, 1]
    assert segments["decode_sequences"].tolist() == [0, 3, 1, 2, 1, 1]
    ended = PREFILL_S + 19 * DECODE_S
    assert requests["finished_s"].tolist() == [ended, ended + PREFILL_S, ended + PREFILL_S + 2 * DECODE_S]
    assert every_gap(segments) == [2 * DECODE_S]


def test_a_prompt_may_pass_one_that_does_not_fit_but_few_free_blocks_are_for_one_alone():
    policy = {"reserve": "chunk", "max_num_batched_tokens": 512}
    lengths = [(16 * 12, 40), (16 * 10, 2), (16, 2)]
    requests = simulate(cluster(seconds, kv_blocks=20, **policy), arrivals([0.0] * 3, lengths)).requests_table()
    assert requests["first_scheduled_s"].tolist()[::2] == [0, 0]
    assert requests["first_scheduled_s"].iloc[1] >= requests["finished_s"].iloc[0]
    few = [(16 * 12, 10), (16, 2)]
    scarce = simulate(cluster(seconds, kv_blocks=14, **policy), arrivals([0.0, 1.0], few)).requests_table()
    assert scarce["first_scheduled_s"].iloc[1] == scarce["finished_s"].iloc[0]


@pytest.mark.parametrize("change", [{"prefix_caching": True}, {"layout": Parallelism(1, 1, False, 2)}])
def test_what_is_not_modelled_beside_standing_still_is_refused(change):
    with pytest.raises(ValueError, match="not modelled"):
        cluster(seconds, reserve="chunk", **change)


def test_no_evict_reserves_the_whole_answer_and_never_preempts():
    lengths = [(16, 51), (16, 51)]
    requests, segments = play("tensorrt-llm", [0.0, 0.0], lengths, kv_blocks=9)
    assert segments["kv_blocks"].tolist() == [5] * len(segments)
    assert requests["preemptions"].sum() == 0
    assert requests["first_scheduled_s"].tolist() == [0, requests["finished_s"].iloc[0]]
    grown, _ = play("tensorrt-llm-max-utilization", [0.0, 0.0], lengths, kv_blocks=9)
    assert grown["first_scheduled_s"].tolist() == [0, 0]
    assert grown["preemptions"].tolist() == [0, 1]


def test_without_chunked_prefill_a_prompt_waits_for_a_step_with_room_for_all_of_it():
    _, segments = play("tensorrt-llm", [0.0, 0.0], [(40, 2), (40, 2)], max_num_batched_tokens=64)
    assert segments["prefill_tokens"].tolist() == [40, 40, 0]
    _, segments = play("vllm", [0.0, 0.0], [(40, 2), (40, 2)], max_num_batched_tokens=64)
    assert segments["prefill_tokens"].tolist() == [64, 16, 0]
    refused, _ = play("tensorrt-llm", [0.0], [(65, 2)], max_num_batched_tokens=64)
    assert refused["reason"].tolist() == ["prompt longer than a step's token budget"]


def test_a_slot_is_an_equal_part_of_the_pool_and_no_request_outgrows_it():
    requests, segments = play(
        "llama.cpp", [0.0] * 4, [(16, 17), (16, 1), (16, 1), (48, 17)], kv_blocks=8, max_num_seqs=2
    )
    assert requests["reason"].tolist() == ["", "", "", "larger than a slot"]
    assert segments["kv_blocks"].max() == 8
    assert requests["first_scheduled_s"].tolist()[:3] == [0, 0, PREFILL_S]


def test_a_static_batch_ends_before_the_next_begins():
    lengths = [(16, 3), (16, 9), (16, 2), (16, 2)]
    requests, segments = play("static", [0.0, 0.0, 1.0, 2.0], lengths, max_num_seqs=3)
    assert requests["first_scheduled_s"].tolist() == [0, 0, PREFILL_S + 8, PREFILL_S + 8]
    assert segments["running"].tolist() == [2, 2, 1, 2, 2]


def test_the_batches_of_a_pipeline_share_one_pool_and_its_prefixes():
    runs = ((1, 64),)
    requests = [Request(80, 2, 2, 0.0, runs), Request(80, 2, 2, 0.0, runs), Request(300, 2, 2, 0.0)]
    spec = cluster(
        seconds, layout=Parallelism(1, pp=2), router="round-robin", prefix_caching=True, kv_blocks=20,
        max_num_batched_tokens=512,
    )  # fmt: skip
    records = simulate(spec, OpenArrivals(np.array([0.0, 50.0, 100.0]), requests, None))
    table = records.requests_table()
    assert table["rank"].tolist() == [0, 1, 0]
    assert table["cached_tokens"].tolist() == [0, 64, 0]
    assert (table["outcome"] == "completed").all()  # the last is larger than half of the pool
    assert len(records.kv_blocks) == 1


def test_requests_of_a_session_stay_together_where_the_router_goes_by_session():
    whose = np.array([[7, 0], [8, 0], [7, 1], [8, 1], [7, 2]])
    requests = [Request(16, 2, 2, 0.0)] * 5
    spec = cluster(seconds, nodes=2, router="session-affine")
    table = simulate(spec, OpenArrivals(np.arange(5) * 1.0, requests, None, whose)).requests_table()
    assert table["node"].tolist() == [1, 0, 1, 0, 1]
    assert table[["session", "turn"]].to_numpy().tolist() == whose.tolist()


def test_the_batches_of_a_pipeline_run_side_by_side():
    """A request alone gains nothing from the second batch; two share no step."""
    spec = cluster(seconds, layout=Parallelism(1, pp=2), router="round-robin")
    requests = simulate(spec, arrivals([0.0, 0.0], [(16, 3), (16, 3)])).requests_table()
    assert requests["rank"].tolist() == [0, 1]
    assert requests["finished_s"].tolist() == [12, 12]


def test_a_pipeline_holds_part_of_the_layers_and_takes_a_batch_through_all_of_them():
    model, weights, bf16 = CATALOG.models["llama-3.1-70b"], CATALOG.weight_formats["fp8"], CATALOG.kv_formats["bf16"]
    device, whole, halves = CATALOG.devices["h100-sxm"], Parallelism(2), Parallelism(2, pp=2)
    efficiency = CATALOG.calibrations["h100-sxm/vllm"]
    embedding = model.embedding_parameters / 2 * weights.embedding_bytes
    layers = weights_per_rank_bytes(model, weights, whole) - 2 * embedding
    assert weights_per_rank_bytes(model, weights, halves) == pytest.approx(layers / 2 + embedding)
    split = memory_budget(model, weights, bf16, device, CATALOG.engines["vllm"], halves)
    assert split.block_bytes == 16 * growth_bytes_per_token(model, bf16, 2) / 2
    assert split.blocks == int(split.kv_pool_bytes / split.block_bytes)

    batch = Batch(16, (16 * 1000.0,), (PrefillChunk(512, 0),), 1)
    one, two = (
        Roofline(model, weights, bf16, device, layout, efficiency).step_time(batch) for layout in (whole, halves)
    )
    assert two.attention_s == pytest.approx(one.attention_s)
    head = model.embedding_parameters / 2
    read_s = head * weights.embedding_bytes / device.memory_bytes_per_s / efficiency.memory_fraction
    head_s = read_s + 17 * 2 * head / device.flops("fp8") / efficiency.flops_fraction
    assert two.dense_s == pytest.approx(one.dense_s + head_s)
    assert two.collectives_s > one.collectives_s


def test_each_engine_sizes_its_pool_by_its_own_rule():
    """70B in FP8 on two H100s, GiB a device: what is left is the engine's fraction of different things."""
    model, weights, bf16 = CATALOG.models["llama-3.1-70b"], CATALOG.weight_formats["fp8"], CATALOG.kv_formats["bf16"]
    device, gib = CATALOG.devices["h100-sxm"], 2**30

    def pool(key):
        return memory_budget(model, weights, bf16, device, CATALOG.engines[key], Parallelism(2)).kv_pool_bytes / gib

    used = weights_per_rank_bytes(model, weights, Parallelism(2)) / gib
    assert pool("vllm") == pytest.approx(0.9 * 79.18 - used - 0.55 - 4.8)
    assert pool("sglang") == pytest.approx(0.87 * 79.18 - used - 0.55)
    assert pool("tensorrt-llm") == pytest.approx(0.9 * (79.18 - used - 0.55 - 4.8))


def test_a_prefix_that_another_request_left_behind_is_not_computed_again():
    runs = ((1, 32), (2, 100))
    requests = [Request(120, 2, 2, 0.0, runs), Request(120, 2, 2, 0.0, runs), Request(100, 2, 2, 0.0, runs)]
    spec = cluster(seconds, prefix_caching=True, max_num_batched_tokens=512)
    records = simulate(spec, OpenArrivals(np.array([0.0, 20.0, 40.0]), requests, None))
    table = records.requests_table()
    # 100 tokens are six full blocks; the last token of a prompt is always computed, and yields the next
    assert table["cached_tokens"].tolist() == [0, 96, 96]
    assert records.segments_table()["prefill_tokens"].tolist() == [120, 0, 24, 0, 4, 0]
    assert records.kv_blocks == [(8 + 2 + 1, 2 + 2 + 1, 6)]


def test_an_answer_is_part_of_the_next_turn_s_prefix():
    first, second = Request(20, 30, 30, 0.0, ((1, 50),)), Request(70, 2, 2, 0.0, ((1, 50), (2, 72)))
    spec = cluster(seconds, prefix_caching=True)
    table = simulate(spec, OpenArrivals(np.array([0.0, 100.0]), [first, second], None)).requests_table()
    assert table["cached_tokens"].tolist() == [0, 48]
