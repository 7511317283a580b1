"""Levers: the average over orders by hand, and a small stack that adds up."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsim.charts.stack import waterfall
from capsim.cli.stack import render
from capsim.errors import Infeasible, ScenarioError
from capsim.levers import load_stack, stack
from capsim.levers.shapley import best_part, filled, shapley

SCENARIO = """\
model: llama-3.1-8b
weights: bf16
node: a100x1
as_of: 2026-11-25
workload:
  arrival: {kind: closed, users: 10}
  prompt_tokens: {kind: geometric, mean: 2000}
  output_tokens: {kind: geometric, mean: 60}
  think_s: {kind: exponential, mean: 60}
slo: {ttft_s: 2 s, tpot_s: 60 ms}
plan: {users: 1000}
replications: 1
"""
STACK = """\
scenario: scenario.yaml
claimed_gain: 100
levers:
  - name: FP8 weights
    set: {weights: fp8}
  - name: newer
    set: {node: h100x1}
  - name: edge
    set: {node: mac-mini-m4}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    path = tmp_path / "stack.yaml"
    path.write_text(STACK)
    return path


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    place = tmp_path_factory.mktemp("stack")
    (place / "scenario.yaml").write_text(SCENARIO)
    (place / "stack.yaml").write_text(STACK)
    return stack(load_stack(place / "stack.yaml"), estimate=True)


values = st.integers(1, 4).flatmap(lambda n: st.lists(st.floats(-5, 5), min_size=1 << n, max_size=1 << n))


@given(values)
def test_shapley_is_the_mean_over_all_orders(values):
    players = len(values).bit_length() - 1
    added = [[] for _ in range(players)]
    for order in itertools.permutations(range(players)):
        mask = 0
        for player in order:
            added[player].append(values[mask | 1 << player] - values[mask])
            mask |= 1 << player
    by_hand = [sum(each) / len(each) for each in added]
    assert shapley(values) == pytest.approx(by_hand, abs=1e-9)
    assert sum(shapley(values)) == pytest.approx(values[-1] - values[0], abs=1e-9)


def test_a_set_that_cannot_be_is_worth_its_best_part():
    values = [0.0, 1.0, 2.0, None]
    assert filled(values) == [0.0, 1.0, 2.0, 2.0]
    assert best_part(values, 3) == 2
    assert shapley(filled(values)) == [0.5, 1.5]
    assert filled([0.0, None, -1.0, None])[3] == 0.0  # leaving both off beats the only one that can be


def test_shares_add_up_to_the_joint_gain(document):
    shares = document["shapley"]["levers"]
    assert sum(each["log_gain"] for each in shares) == pytest.approx(math.log(document["joint"]["gain"]))
    assert math.prod(each["gain"] for each in shares) == pytest.approx(document["joint"]["gain"])
    assert sum(each["share"] for each in shares) == pytest.approx(1)


def test_gain_is_cost_over_cost(document):
    base, joint = document["base"], document["joint"]
    assert base["gain"] == 1
    assert joint["gain"] == pytest.approx(base["usd_per_million_tokens"] / joint["usd_per_million_tokens"])
    assert document["product"] == pytest.approx(math.prod(row["gain"] for row in document["alone"]))
    assert document["interaction"] == pytest.approx(joint["gain"] / document["product"])
    low, high = joint["gain_with_model_error"]
    assert low < joint["gain"] < high
    assert base["nodes"] == math.ceil(1000 / base["sessions"][0])
    assert base["monthly_usd"] == pytest.approx(base["nodes"] * 730 * 1.3)


def test_what_does_not_go_together_is_left_off_and_told(document):
    edge_alone = document["alone"][2]
    assert "does not fit" in edge_alone["infeasible"] or "not even one" in edge_alone["infeasible"]
    assert edge_alone["gain"] == 1
    assert document["joint"]["levers"] == ["FP8 weights", "newer"]
    assert "newer sets node to h100x1, edge to mac-mini-m4" in document["joint"]["infeasible"]
    assert [row["levers"] for row in document["cumulative"]] == [["FP8 weights"], *[["FP8 weights", "newer"]] * 2]
    told = {tuple(each["levers"]): each["sets"] for each in document["infeasible"]}
    assert told["newer", "edge"] == 2


@pytest.mark.slow
def test_simulated_sets_are_near_the_closed_form_and_add_up(path, document):
    path.write_text(STACK[: STACK.index("  - name: edge")])
    steps = []
    simulated = stack(load_stack(path), on_step=lambda *step: steps.append(step))
    assert simulated["how"] == simulated["shapley"]["how"] == "simulated"
    assert simulated["joint"]["gain"] == pytest.approx(document["joint"]["gain"], rel=0.25)
    low, high = simulated["joint"]["gain_bracket"]
    assert low < simulated["joint"]["gain"] < high
    shares = simulated["shapley"]["levers"]
    assert math.prod(each["gain"] for each in shares) == pytest.approx(simulated["joint"]["gain"])
    assert steps[-1] == (4, 4, "done")


def test_what_turns_out_not_to_be_has_others_simulated_in_its_place(path, monkeypatch):
    """The gain of all together is by simulation on both sides, whatever falls out of it on the way."""

    def simulated(step, on_trial):
        if len(step.levers) == 3 or step.levers == ("FP8 weights", "newer"):
            raise Infeasible("not even one session")
        return replace(step, carried=replace(step.carried, how="simulated", sessions=(step.carried.sessions[0], 999)))

    monkeypatch.setattr("capsim.levers.document.SIMULATE_ALL", 1)
    monkeypatch.setattr("capsim.levers.step.Step.simulated", simulated)
    path.write_text(
        STACK[: STACK.index("  - name: edge")] + "  - name: batches\n    set: {scheduler.max_num_seqs: 300}\n"
    )
    document = stack(load_stack(path))
    assert document["joint"]["levers"][-1] == "batches"
    assert len(document["joint"]["levers"]) == 2
    rows = [document["base"], document["joint"], *document["alone"], *document["cumulative"]]
    assert {row["how"] for row in rows} == {"simulated"}


def test_prices_of_all_steps_are_told_of_when_old(path):
    path.write_text(STACK[: STACK.index("  - name: edge")] + "  - name: newest\n    set: {node: b200x1}\n")
    document = stack(load_stack(path), ["as_of=2027-06-01"], estimate=True)
    nodes = {row["node"] for row in (document["base"], *document["alone"])}
    assert nodes == {"a100x1", "h100x1", "b200x1"}
    for node in nodes:
        assert any(note.startswith(f"price {node}-on-demand") for note in document["warnings"]), node


def test_another_order_gives_other_steps_and_the_same_average(path, document):
    turned = stack(load_stack(path), estimate=True, order=["edge", "newer", "FP8 weights"])
    assert [lever["name"] for lever in turned["levers"]] == ["edge", "newer", "FP8 weights"]
    assert turned["cumulative"][1]["gain"] != pytest.approx(document["cumulative"][0]["gain"])
    named = {each["name"]: each["gain"] for each in turned["shapley"]["levers"]}
    assert named == pytest.approx({each["name"]: each["gain"] for each in document["shapley"]["levers"]})
    with pytest.raises(ScenarioError, match="unknown lever 'newr'.*did you mean 'newer'"):
        stack(load_stack(path), estimate=True, order=["newr"])
    with pytest.raises(ScenarioError, match="every lever once"):
        stack(load_stack(path), estimate=True, order=["newer"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weights: fp8", "weights: fp9", r"stack.yaml:5 levers.0.set.weights: unknown .*fp9"),
        ("node: h100x1", "slo.ttft_s: 9", "same load and SLO"),
        ("name: newer", "name: edge", "two levers are called 'edge'"),
        ("scenario.yaml", "other.yaml", "file not found"),
    ],
)
def test_mistakes_say_where_they_are(path, old, new, message):
    path.write_text(STACK.replace(old, new, 1))
    with pytest.raises(ScenarioError, match=message):
        load_stack(path)


def test_a_baseline_without_users_or_price_is_refused(path):
    with pytest.raises(ScenarioError, match="same load"):
        stack(load_stack(path), ["plan.users=null"], estimate=True)
    with pytest.raises(Infeasible, match="price unknown"):
        stack(load_stack(path), ["node=l40s-x1"], estimate=True)


def test_every_format_renders_and_the_chart_ends_at_the_claim(document):
    table = render(document, "table")
    assert "claimed 100x" in table
    assert "joint gain" in table
    assert "left off" in table
    assert json.loads(render(document, "json"))["joint"]["gain"] == document["joint"]["gain"]
    assert render(document, "csv").startswith("metric,value\n")
    assert render(document, "markdown").startswith("|")
    chart = waterfall(document).to_dict()
    assert {layer["encoding"]["x"]["title"] for layer in chart["layer"]} == {"USD per million tokens, input and output"}
    rows = chart["layer"][0].get("data", chart.get("data"))["values"]
    assert [row["step"] for row in rows[-3:]] == ["all together", "product of single gains", "claimed"]
    base = document["base"]["usd_per_million_tokens"]
    assert rows[-1]["to"] == pytest.approx(base / 100)
