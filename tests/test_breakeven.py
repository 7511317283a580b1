"""Break-even against sums done by hand, and against each load tried one by one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim import cost
from capsim.breakeven import breakeven
from capsim.breakeven.fleet import NODE_AVAILABILITY, Fleet, cheaper_from
from capsim.charts.breakeven import monthly_cost
from capsim.cli.breakeven import render
from capsim.errors import ScenarioError
from capsim.experiment import Interrupted
from capsim.prices import Price, Quote
from capsim.scenario import resolve

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
as_of: 2026-11-25
workload:
  arrival: {kind: profile, period_s: 24h, rates: [0, 1, 2, 5], mean_rate_per_s: 20}
  prompt_tokens: {kind: geometric, mean: 1000}
  output_tokens: {kind: geometric, mean: 200}
slo: {ttft_s: 500 ms, tpot_s: 15 ms}
replications: 2
"""
RENT = Price(name="rent", node="n", kind="rent", usd_per_hour=2.0)
QUOTE = Price(name="quote", node="n", kind="rent", quote=Quote(usd_per_hour=1.0, term_months=36, minimum_nodes=5))
MONTH_S = cost.SECONDS_PER_MONTH


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def test_break_even_of_one_node_by_hand():
    fleet = Fleet(RENT, (1.0,), node_per_s=10.0, spare_nodes=0)
    usd = 2 * 2 * 730 / (MONTH_S * NODE_AVAILABILITY) / 15  # n nodes break even at 7.5 n requests/s
    first, always = cheaper_from(fleet, usd)
    assert first == pytest.approx(7.5)
    assert always == pytest.approx(22.5)  # at 10 a second node comes, at 20 a third


def test_a_price_below_that_of_a_full_node_is_never_beaten():
    fleet = Fleet(RENT, (1.0,), node_per_s=10.0, spare_nodes=1)
    full = 2 * 730 / MONTH_S / 10
    assert cheaper_from(fleet, 0.99 * full) == (None, None)
    assert cheaper_from(fleet, 1.01 * full)[1] is not None


@settings(max_examples=40, deadline=None)
@given(
    price=st.sampled_from([RENT, QUOTE]), spare_nodes=st.integers(0, 2), usd=st.floats(1e-5, 2e-3),
    hours=st.lists(st.floats(0.1, 3), min_size=1, max_size=5),
)  # fmt: skip
def test_break_even_is_where_costs_cross(price, spare_nodes, usd, hours):
    fleet = Fleet(price, tuple(hours), 10.0, spare_nodes)
    first, always = cheaper_from(fleet, usd)
    loads = np.linspace(0.01, 400, 3000)
    hosted = fleet.usd_for_all(np.array([fleet.nodes(per_s).mean() for per_s in loads]))
    cheaper = hosted < usd * loads * MONTH_S
    assert not cheaper[loads < (np.inf if first is None else first - 1e-6)].any()
    assert cheaper[loads > (np.inf if always is None else always + 1e-6)].all()


def test_spares_serve_what_would_be_lost():
    alone, spared = (Fleet(RENT, (1.0,), 10.0, spares) for spares in (0, 1))
    assert alone.served_share(np.array(4)) == pytest.approx(NODE_AVAILABILITY)
    down = 1 - NODE_AVAILABILITY
    both = down**2  # of two nodes, one is enough
    assert spared.served_share(np.array(2)) == pytest.approx(1 - both)


def test_nodes_follow_the_hours():
    fleet = Fleet(RENT, (0.0, 0.5, 2.5), node_per_s=10.0, spare_nodes=1)
    assert fleet.nodes(20.0).tolist() == [1, 2, 6]
    assert Fleet(QUOTE, (1.0,), 10.0, 0).usd_for_all(np.array(1.0)) == pytest.approx(5 * 730 / NODE_AVAILABILITY)


def test_the_document_adds_up(scenario):
    document = breakeven(resolve(scenario, []), estimate=True)
    load, node = document["load"], document["node"]
    assert load["requests_per_s"] == pytest.approx(20)
    assert load["peak_over_mean"] == 2.5
    assert np.mean(load["hours"]) == pytest.approx(1)
    for row in document["self_host"]:
        assert row["cost"]["monthly_usd"] == pytest.approx(sum(line["monthly_usd"] for line in row["cost"]["lines"]))
        low, high = row["monthly_usd_model_error"]
        assert low <= row["cost"]["monthly_usd"] <= high
    slow, fast = node["model_error"]["requests_per_s"]
    assert slow < node["requests_per_s"] < fast
    fixed, hourly = (
        next(row for row in document["self_host"] if row["name"] == f"h100x1-on-demand{by}")
        for by in ("", ", by the hour")
    )  # fmt: skip
    assert fixed["nodes"] == int(np.ceil(50 / node["requests_per_s"])) + 1 == fixed["mean_nodes"]
    assert hourly["mean_nodes"] == pytest.approx(
        np.mean(np.ceil([r / node["requests_per_s"] for r in (0, 10, 20, 50)])) + 1
    )
    assert hourly["utilisation"] > fixed["utilisation"]
    weights = np.array([0, 0.5, 1, 2.5])
    assert fixed["utilisation_by_hour"] == pytest.approx(weights * 20 / (fixed["nodes"] * node["requests_per_s"]))
    for tier in document["tiers"]:
        bill = tier["bill"]
        parts = [line["monthly_usd"] for line in bill["lines"]]
        assert bill["known_usd"] == pytest.approx(sum(part for part in parts if part is not None))
        if bill["monthly_usd"] is not None:
            whole = tier["usd_per_request"] * load["requests_per_s"] * MONTH_S
            assert bill["monthly_usd"] == pytest.approx(whole * tier["served_share"])
    known = [tier["bill"]["monthly_usd"] for tier in document["tiers"]]
    assert known[-1] is None
    assert sorted(known, key=cost.known_first) == known


def test_idle_hours_and_the_smallest_load_have_whole_numbers(scenario):
    idle = breakeven(resolve(scenario, []), estimate=True, spare_nodes=0)
    (hourly,) = (row for row in idle["self_host"] if row["name"] == "h100x1-on-demand, by the hour")
    assert hourly["utilisation_by_hour"][0] == 0
    assert "nan" not in render(idle, "table")
    asked = ["workload.arrival={kind: poisson, rate_per_s: 1e-9}"]
    least = breakeven(resolve(scenario, asked), estimate=True, spare_nodes=0)
    assert all(row["nodes"] == 1 and 0 < row["utilisation"] < 1e-9 for row in least["self_host"])


def test_a_cached_token_is_priced_apart(scenario):
    resolved = resolve(scenario, [])
    cold, warm = (breakeven(resolved, estimate=True, hit_rate=rate) for rate in (0.0, 0.9))
    usd = [{tier["key"]: tier["usd_per_request"] for tier in document["tiers"]} for document in (cold, warm)]
    tokens = cold["node"]["tokens_per_request"]["input"]
    assert usd[0]["gpt-5"] - usd[1]["gpt-5"] == pytest.approx(0.9 * tokens * (1.25 - 0.125) / 1e6)
    assert usd[0]["llama-4-maverick-oci"] == pytest.approx(usd[1]["llama-4-maverick-oci"])  # no price for cached input


def test_users_are_the_load_of_their_sessions(scenario):
    asked = [
        "plan.users=500",
        "workload.arrival={kind: closed, users: 7}",
        "workload.think_s={kind: exponential, mean: 60}",
    ]
    document = breakeven(resolve(scenario, asked), estimate=True)
    node = document["node"]
    assert document["load"]["requests_per_s"] == pytest.approx(500 / node["sessions"][0] * node["requests_per_s"])


def test_simulated_capacity_has_its_bracket_and_the_measured_hit_rate(scenario):
    chat = [
        "workload.arrival={kind: poisson, rate_per_s: 1}", "workload.session={turns: {kind: geometric, mean: 3}}",
        "workload.session.new_tokens={kind: geometric, mean: 50}", "workload.think_s={kind: exponential, mean: 2}",
        "replications=1", "scheduler.max_num_seqs=8", "workload.output_tokens={kind: geometric, mean: 20}",
    ]  # fmt: skip
    document = breakeven(resolve(scenario, chat))
    low, high = document["node"]["sessions"]
    assert 0 < low < high
    assert 0.3 < document["node"]["hit_rate"] < 1
    assert document["api_hit_rate"] == document["node"]["hit_rate"]
    assert document["load"]["requests_per_s"] == pytest.approx(3, rel=0.1)


def test_an_interrupted_search_leaves_nothing(scenario, monkeypatch):
    def interrupted(*anything):
        raise Interrupted

    monkeypatch.setattr("capsim.breakeven.node.find_capacity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        breakeven(resolve(scenario, []))


def test_without_any_price_there_is_nothing_to_compare(scenario):
    with pytest.raises(ScenarioError, match="price unknown"):
        breakeven(resolve(scenario, ["node=ascend-910cx8"]), estimate=True)


def test_it_is_printed_in_four_formats_and_drawn(scenario):
    document = breakeven(resolve(scenario, ["api_tier=deepseek-v3.2"]), estimate=True)
    table = render(document, "table")
    assert "DeepSeek V4 as the article has it" in table
    assert table.index("Claude Opus 4 and 4.1") < table.index("price unknown")
    assert table.splitlines()[-2].startswith("DeepSeek-V3.2")
    assert json.loads(render(document, "json"))["spare_nodes"] == 1
    assert "load.requests_per_s,20" in render(document, "csv")
    assert "| --- |" in render(document, "markdown")
    drawn = json.dumps(monthly_cost(document).to_dict())
    assert "h100x1-on-demand, by the hour" in drawn
    assert "DeepSeek-V3.2 (deepseek-chat)" in drawn
