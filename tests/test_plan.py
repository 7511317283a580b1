"""The document of a plan: what is simulated of many candidates, what would change it, sites and growth."""

import itertools
import json

import pytest

from capsim.capacity import plan, sessions
from capsim.capacity.answers import answer
from capsim.capacity.fleet import size_for, smallest
from capsim.capacity.tornado import would_change
from capsim.charts.plan import capacity_curve
from capsim.cli.plan_table import render_plan
from capsim.cli.tables import bracket_text
from capsim.errors import Infeasible, ScenarioError
from capsim.pages.parts.figures import curve_rows, told_apart
from capsim.scenario import resolve, variant

SCENARIO = """\
model: llama-3.1-8b
weights: fp8
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 1}
  prompt_tokens: 400
  output_tokens: 30
  think_s: {kind: exponential, mean: 5}
scheduler: {max_num_seqs: 2}
slo: {ttft_s: 200 ms, tpot_s: 20 ms}
replications: 1
"""


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "scenario.yaml"
    path.write_text(SCENARIO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "MIN_REQUESTS", 300)
        yield lambda *overrides: resolve(path, overrides)


@pytest.fixture(scope="module")
def grown(resolved):
    """A plan for users of two sites who grow in number."""
    return planned(resolved("plan={users: 600, sites: 2, growth_per_month: 0.1}"))[0]


def planned(one):
    return plan(one, lambda number, point: None)


def test_a_plan_simulates_near_the_cheapest_and_leaves_the_rest_estimated(resolved):
    lists = "nodes: [h100x1, a100x1, h100x8, mac-mini-m4-pro, ascend-910bx8]"
    document, at_limit = planned(resolved(f"plan={{users: 300, {lists}}}"))
    rows, cheapest = document["estimates"], document["estimates"][0]["monthly_usd"]
    for row in rows:
        assert row["simulated"] == (row["monthly_usd"] is not None and row["monthly_usd"] <= 1.3 * cheapest)
    found = document["candidates"]
    assert [one["monthly_usd"] for one in found] == sorted(one["monthly_usd"] for one in found)
    assert {one["node"] for one in found} == {row["node"] for row in rows if row["simulated"]}
    assert [row["node"] for row in document["excluded"]] == ["mac-mini-m4-pro"]
    assert at_limit.resolved.scenario.node == found[0]["node"]
    table = render_plan(document, "table")
    assert "price unknown" in table
    assert "not even one session" in table
    assert f"{found[0]['nodes']:,} nodes for 300 users" in table.splitlines()[-2]


def test_a_candidate_shows_its_curve_and_what_it_was_resolved_to(grown):
    (one,) = grown["candidates"]
    low, high = one["sessions"]["attached"]
    curve = {row["sessions"]: row for row in one["curve"]}
    assert list(curve) == sorted(curve)
    assert curve[low]["goodput"] >= 0.95 > curve[high]["goodput"]
    assert curve[high]["replications"] >= 3
    inside, ends = curve[high]["ttft_s_p95"], curve[high]["ttft_s_p95_ci95"]
    assert ends[0] <= inside <= ends[1]
    assert one["scenario"]["scenario"]["node"] == "h100x1"
    assert json.loads(render_plan(grown, "json"))["estimates"][0]["simulated"] is True


def test_latencies_at_the_limit_have_their_model_error_beside_their_interval(resolved):
    document, at_limit = planned(resolved())
    (one,) = document["candidates"]
    low, high = one["model_error"]["ttft_s"]["p95"]
    assert 0 < low < one["latency"]["ttft_s"]["p95"] < high
    ends = one["model_error"]["tpot_s"]["mean"]
    fast, slow = one["model_error"]["step_time"]
    assert ends[0] <= fast * one["latency"]["tpot_s"]["mean"] * 1.02
    assert ends[1] >= slow * one["latency"]["tpot_s"]["mean"] * 0.98
    assert at_limit.summary["model_error"]["ttft_s"] == one["model_error"]["ttft_s"]
    ttft, e2e = (line for line in render_plan(document, "table").splitlines() if line.startswith(("TTFT ", "E2E ")))
    assert bracket_text(one["model_error"]["ttft_s"]["mean"]) in ttft
    assert bracket_text(one["model_error"]["e2e_s"]["mean"]) in e2e


def test_two_kv_formats_of_a_node_have_curves_of_their_own():
    def candidate(kv_format, sessions):
        return {
            "node": "h100x1", "kv_format": kv_format, "parallelism": "tp1 dp1", "max_num_seqs": 256,
            "sessions": {"attached": [sessions, sessions + 1]},
            "curve": [{"sessions": at, "replications": 1, "goodput": 1.0, "ttft_s_p95": at / 100,
                       "ttft_s_p95_ci95": None} for at in (100, sessions, sessions + 1)],
        }  # fmt: skip

    rows = curve_rows({"candidates": [candidate("bf16", 110), candidate("fp8", 220)]})
    chart = capacity_curve(rows, "ttft_s", 2.0).to_dict()
    assert chart["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["h100x1, bf16 KV", "h100x1, fp8 KV"]
    knees = {row["candidate"]: row["sessions"] for row in rows if row["knee"]}
    assert knees == {"h100x1, bf16 KV": 110, "h100x1, fp8 KV": 220}
    assert told_apart([candidate("bf16", 110)]) == ["h100x1"]


def test_no_candidate_at_all_tells_why_of_each(resolved):
    with pytest.raises(Infeasible, match="(?s)no candidate serves.*h100x1.*a100x1"):
        planned(resolved("plan.nodes=[h100x1, a100x1]", "slo.tpot_s=1 ms"))


def test_every_site_has_a_fleet_of_its_own(resolved, grown):
    (one,) = grown["candidates"]
    assert one["fleet"] == size_for(resolved(), 300, one["fleet"]["nodes"] - 1, lambda nodes, run: None)
    assert one["nodes"] == 2 * one["fleet"]["nodes"]
    assert one["monthly_usd"] == pytest.approx(one["nodes"] * resolved().price.usd_per_hour * 730)
    assert f"{one['nodes']} nodes for 600 users at 2 sites, one at each" in render_plan(grown, "table")


def test_growth_dates_the_next_node(grown):
    (one,) = grown["candidates"]
    months = one["growth"]["months"]
    assert months[0] == {"month": 0, "users": 600, "nodes": one["nodes"]}
    assert months[1]["month"] == one["growth"]["next_node_month"] > 0
    assert all(month["nodes"] % 2 == 0 for month in months), "both sites have the same fleet"
    assert all(later["nodes"] > earlier["nodes"] for earlier, later in itertools.pairwise(months))
    assert f"more are needed in month {months[1]['month']}" in render_plan(grown, "table")


def test_sites_and_growth_need_users(resolved):
    with pytest.raises(ScenarioError, match="give users as well"):
        resolved("plan={sites: 3}")


def test_what_would_change_the_answer_is_what_the_scenario_changed_so_answers(resolved):
    one = resolved("plan={users: 300}", "scheduler.max_num_seqs=4")
    steps = would_change(one)
    assert [abs(step["change"]) for step in steps] == sorted((abs(step["change"]) for step in steps), reverse=True)
    assert {"kv_format", "weights", "scheduler.enable_prefix_caching", "scheduler.max_num_seqs", "slo.ttft_s",
            "slo.tpot_s", "nodes"} <= {step["knob"] for step in steps}  # fmt: skip
    doubled = next(step for step in steps if (step["knob"], step["to"]) == ("scheduler.max_num_seqs", 8))
    there = answer(variant(one, ["scheduler.max_num_seqs=8"]))
    assert doubled["sessions"] == there["sessions"]
    assert doubled["change"] == pytest.approx(there["sessions"] / answer(one)["sessions"] - 1)
    looser = [step for step in steps if step["knob"].startswith("slo.") and step["to"] > step["from"]]
    assert all(step["change"] >= 0 for step in looser)


def test_a_node_more_is_one_at_each_site_and_costs_what_the_price_says(resolved):
    quote = "quote: {usd_per_hour: 2, term_months: 12, minimum_nodes: 50}"
    one = resolved("plan={users: 600, sites: 2}", f"price={{{quote}}}")
    fewer, more = sorted((s for s in would_change(one) if s["knob"] == "nodes"), key=lambda step: step["to"])
    nodes = answer(one)["nodes"]
    assert (fewer["to"], more["to"]) == (nodes - 2, nodes + 2)
    assert fewer["monthly_usd"] == more["monthly_usd"] == pytest.approx(50 * 2 * 730), "the minimum is paid anyway"
    assert more["change"] == pytest.approx(1 / (nodes / 2 - 1))


def test_far_too_many_users_are_refused_at_once():
    with pytest.raises(Infeasible, match="16,384 nodes"):
        smallest(lambda nodes: pytest.fail("no such fleet is looked at"), 10**12)


def test_a_step_beside_includes_the_layouts_next_to_the_own(resolved):
    steps = would_change(resolved("node=h100x8", "parallelism={tp: 4, dp: 2}"))
    assert {step["to"] for step in steps if step["knob"] == "parallelism"} == {"tp8", "tp2 dp4"}
