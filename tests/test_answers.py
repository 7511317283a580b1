"""Instant answers: candidates by the closed form, ranked by cost, and those that cannot serve."""

import pytest

from capsim.capacity import answers, instant
from capsim.errors import ScenarioError
from capsim.scenario import resolve, variant

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
kv_format: fp8
price: {usd_per_hour: 3}
workload:
  arrival: {kind: poisson, rate_per_s: 1}
  prompt_tokens: 500
  output_tokens: {kind: geometric, mean: 100}
  think_s: {kind: exponential, mean: 20}
slo: {ttft_s: 1 s, tpot_s: 30 ms}
plan: {users: 5000}
"""


@pytest.fixture
def resolved(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return lambda *overrides: resolve(path, overrides)


def test_without_lists_the_scenario_s_own_fleet_is_the_one_candidate(resolved):
    found = answers(resolved())
    (row,) = found["estimates"]
    assert (row["node"], row["kv_format"], row["parallelism"]) == ("h100x1", "fp8", "tp1")
    assert found["excluded"] == []
    assert row["monthly_usd"] == pytest.approx(row["nodes"] * 3 * 730)
    assert row["latency"]["ttft_s"]["p50"] <= row["latency"]["ttft_s"]["p95"]
    assert row["goodput"] >= 0.95


def test_the_cheapest_fleet_for_the_users_comes_first_and_an_unknown_price_last(resolved):
    rows = answers(resolved("plan.nodes=[h100x1, h100x8, a100x1, ascend-910bx8]"))["estimates"]
    known = [row["monthly_usd"] for row in rows if row["monthly_usd"] is not None]
    assert known == sorted(known)
    assert [row["monthly_usd"] is None for row in rows] == [False] * len(known) + [True] * (len(rows) - len(known))
    assert rows[-1]["node"] == "ascend-910bx8"


def test_without_users_a_session_s_cost_ranks(resolved):
    rows = answers(resolved("plan={nodes: [h100x1, h100x8, a100x1]}"))["estimates"]
    each = [row["monthly_usd"] / row["sessions"] for row in rows]
    assert each == sorted(each)
    assert {row["nodes"] for row in rows} == {None}


def test_every_list_is_searched(resolved):
    lists = "nodes: [h100x8], kv_formats: [bf16, fp8], parallelism: [{tp: 8}, {tp: 2, dp: 4}], max_num_seqs: [16, 64]"
    rows = answers(resolved(f"plan={{{lists}}}"))["estimates"]
    found = {(row["kv_format"], row["parallelism"], row["max_num_seqs"]) for row in rows}
    assert found == {(kv, layout, cap) for kv in ("bf16", "fp8") for layout in ("tp8", "tp2 dp4") for cap in (16, 64)}


def test_all_layouts_include_the_one_that_auto_takes(resolved):
    auto = answers(resolved("plan={nodes: [h100x8]}"))["estimates"][0]["parallelism"]
    every = answers(resolved("plan={nodes: [h100x8], parallelism: all}"))["estimates"]
    assert auto in [row["parallelism"] for row in every]
    assert {row["parallelism"] for row in every} == {"tp1 dp8", "tp2 dp4", "tp4 dp2", "tp8"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["plan.nodes=[mac-mini-m4-pro]"], "does not serve fp8 KV"),
        (["model=llama-3.1-70b", "weights=bf16"], "GiB short on each device"),
        (["slo.tpot_s=1 ms"], "not even one session is served inside the SLO"),
        (["slo={tpot_s: 10 s}"], "no number of users misses"),
    ],
)
def test_what_cannot_serve_is_excluded_with_reason_and_remedy(resolved, overrides, reason):
    if "model" in overrides[0]:
        overrides = [*overrides, "node=h100x8", "price=null", "plan.nodes=[h100x1]"]
    found = answers(resolved(*overrides))
    assert found["estimates"] == []
    (row,) = found["excluded"]
    assert reason in row["reason"]
    assert row["remedies"]


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}"], "batch cap"),
        (["kv_capacity_tokens=3200", "slo={ttft_s: 100 ms}"], "KV capacity"),
        (["workload.prompt_tokens=8000", "workload.output_tokens=1", "slo={ttft_s: 800 ms}"], "compute"),
    ],
)
def test_it_is_limited_by_what_it_is_short_of(resolved, overrides, word):
    assert answers(resolved(*overrides))["estimates"][0]["limited_by"] == word


def test_short_prompts_and_heavy_weights_are_limited_by_memory_bandwidth(resolved):
    heavy = ["weights=bf16", "workload.prompt_tokens=1"]
    alone_s = instant(resolved(*heavy, "slo={tpot_s: 1 us}")).latency["tpot_s"]["p95"]
    (row,) = answers(resolved(*heavy, f"slo={{tpot_s: {1.05 * alone_s}}}"))["estimates"]
    assert row["limited_by"] == "memory bandwidth"


def test_a_variant_keeps_the_overrides_and_adds_to_them(resolved):
    other = variant(resolved("seed=7", "slo.ttft_s=2 s"), ["kv_format=bf16"])
    assert (other.scenario.seed, other.scenario.slo.ttft_s, other.kv_format.name) == (7, 2, "bf16")


def test_another_engine_comes_with_its_own_limits_and_another_node_with_its_own_price(resolved):
    slow = ["kv_format=bf16", "slo.ttft_s=60 s", "slo.tpot_s=1 s"]
    one = resolved("scheduler.max_num_seqs=64", "plan.nodes=[mac-mini-m4-pro]", *slow)
    (row,) = answers(one)["estimates"]
    assert row["max_num_seqs"] == 1
    assert row["basis"]["price"]["key"].startswith("mac-mini-m4-pro")


def test_names_that_the_catalog_lacks_are_refused_with_the_nearest(resolved):
    with pytest.raises(ScenarioError, match=r"plan.nodes: unknown 'h100x9' \(did you mean 'h100x8'\?\)"):
        resolved("plan.nodes=[h100x9]")
    with pytest.raises(ScenarioError, match=r"plan.kv_formats: unknown 'fp9'"):
        resolved("plan.kv_formats=fp9")


def test_too_many_combinations_are_refused(resolved):
    with pytest.raises(ScenarioError, match="shorten one of its lists"):
        answers(resolved("plan={nodes: all, kv_formats: all}"))
