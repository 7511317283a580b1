"""Plans turned around: the longest context for the users, and the fastest answers for the money."""

import json
import math

import pandas as pd
import pytest

from capsim import capacity
from capsim.capacity import fastest_answers, instant, longest_context, sessions
from capsim.capacity.fleet import with_nodes
from capsim.capacity.instant import fleet_of
from capsim.capacity.inverse import _last_kept
from capsim.cli import main
from capsim.cli.inverse_table import render_answer
from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import Interrupted, run
from capsim.scenario import resolve, variant

SCENARIO = """\
model: llama-3.1-8b
weights: fp8
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 1}
  prompt_tokens: 400
  output_tokens: 30
  think_s: {kind: exponential, mean: 20}
scheduler: {max_num_seqs: 16}
slo: {ttft_s: 500 ms, tpot_s: 20 ms}
plan: {users: 50}
replications: 2
"""


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "MIN_REQUESTS", 300)
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return lambda *overrides: resolve(path, overrides)


def quiet(number, run):
    pass


def test_the_longest_prompts_are_served_and_much_longer_ones_are_not(resolved):
    one = resolved()
    document, checked = longest_context(one, quiet)
    kept, missed = document["prompt_tokens"]
    estimated = document["estimated_prompt_tokens"]
    assert 400 < estimated < 131_072
    assert kept < missed <= 1.12 * kept
    beyond = sessions.with_sessions(variant(one, [f"workload.prompt_tokens={missed}"]), 50)
    assert not run(beyond).summary["slo"]["passed"]
    assert document["simulated"]["passed"]
    assert checked.resolved.lengths[0].max() == kept
    for tokens, inside in ((estimated, True), (round(1.05 * estimated), False)):
        fleet = fleet_of(variant(one, [f"workload.prompt_tokens={tokens}"]))
        assert (fleet.goodput(50) >= 0.95) == inside
    last = render_answer(document, "table").splitlines()[-1]
    assert f"prompts of {kept:,} tokens" in last
    assert "for 50 users on 1 node" in last


def test_more_nodes_carry_longer_prompts(resolved):
    one, two = (longest_context(resolved(f"nodes={n}", "plan.users=200"), quiet)[0] for n in (1, 2))
    assert one["estimated_prompt_tokens"] < two["estimated_prompt_tokens"]


def test_the_fastest_fleet_for_the_money_keeps_the_slo_and_the_ceiling(resolved):
    one = resolved("plan.nodes=[h100x1, a100x1, h100x8, ascend-910bx8]")
    document, checked = fastest_answers(one, 6000, quiet)
    rows = document["estimates"]
    tpots = [row["latency"]["tpot_s"]["p95"] for row in rows]
    assert tpots == sorted(tpots)
    assert all(row["monthly_usd"] <= 6000 for row in rows)
    assert {row["node"]: row["reason"].split(" cost ")[0] for row in document["excluded"]} == {
        "h100x8": "the 2 nodes that the users need", "ascend-910bx8": "price unknown",
    }  # fmt: skip
    assert document["simulated"]["passed"]
    assert checked.resolved.scenario.nodes == rows[0]["nodes"] >= 2
    assert checked.resolved.scenario.node == rows[0]["node"]
    assert instant(with_nodes(checked.resolved, rows[0]["nodes"] - 1)).sessions >= 50
    assert f"{rows[0]['nodes']} nodes of {rows[0]['node']}" in render_answer(document, "table").splitlines()[-1]


def test_too_little_money_says_what_is_missing(resolved):
    with pytest.raises(Infeasible, match=r"nothing for \$100 a month(?s:.*)cost \$4,307 a month"):
        fastest_answers(resolved(), 100, quiet)


def test_a_quote_s_minimum_is_paid_once_and_money_without_end_buys_what_helps(resolved):
    one = resolved("price={quote: {usd_per_hour: 2, term_months: 12, minimum_nodes: 8}}")
    (row,) = fastest_answers(one, 8 * 2 * 730, quiet)[0]["estimates"]
    assert row["monthly_usd"] == pytest.approx(8 * 2 * 730)
    assert fastest_answers(one, math.inf, quiet)[0]["estimates"][0]["nodes"] >= row["nodes"]


@pytest.mark.parametrize("guess", [5, 90, 100, 101, 5000])
def test_the_last_length_kept_is_sought_up_and_down(guess):
    kept, missed = _last_kept(lambda tokens: tokens <= 100, guess)
    assert kept <= 100 < missed <= kept / 0.9 + 2
    with pytest.raises(Infeasible, match="one token"):
        _last_kept(lambda tokens: False, guess)


def test_a_longest_context_needs_a_target(resolved):
    with pytest.raises(ScenarioError, match="needs a latency target"):
        longest_context(resolved("slo=null"), quiet)


@pytest.mark.parametrize("ask", [longest_context, lambda one, tell: fastest_answers(one, 1e4, tell)])
def test_both_are_about_users_of_one_site(resolved, ask):
    with pytest.raises(ScenarioError, match=r"plan\.users"):
        ask(resolved("plan={}"), quiet)
    with pytest.raises(ScenarioError, match=r"plan\.sites"):
        ask(resolved("plan.sites=2"), quiet)


def test_the_verb_prints_the_answer_and_keeps_the_run(resolved, tmp_path, capsys):
    path, out = resolved().path, tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["plan", str(path), "--longest-context", "--format=json", f"--out={out}"])
    assert end.value.code == 0
    kept, _ = json.loads(capsys.readouterr().out)["prompt_tokens"]
    assert (pd.read_parquet(out / "requests.parquet")["prompt_tokens"] == kept).all()


def test_an_interrupt_has_the_exit_code_of_one(resolved, monkeypatch):
    def stopped(*_):
        raise Interrupted

    monkeypatch.setattr(capacity, "longest_context", stopped)
    with pytest.raises(SystemExit) as end:
        main(["plan", str(resolved().path), "--longest-context"])
    assert end.value.code == 130


def test_one_question_at_a_time(resolved, capsys):
    with pytest.raises(SystemExit) as end:
        main(["plan", str(resolved().path), "--longest-context", "--max-monthly-usd=5"])
    assert end.value.code == 2
    assert "ask for one of" in capsys.readouterr().err
