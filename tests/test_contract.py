"""Contracts against sums done by hand, and the random streams behind them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsim.charts.contract import costs
from capsim.cli.contract import render
from capsim.contract import contract
from capsim.contract.costs import World, committed_usd, flexible_usd
from capsim.contract.indifference import indifferent
from capsim.contract.paths import load_factors, price_factors
from capsim.errors import ScenarioError
from capsim.json_text import to_json
from capsim.prices import HOURS_PER_MONTH, Quote
from capsim.scenario import resolve
from capsim.scenario.spec import ContractSpec, PricePath

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
as_of: 2026-11-25
workload:
  arrival: {kind: poisson, rate_per_s: 60}
  prompt_tokens: {kind: geometric, mean: 1000}
  output_tokens: {kind: geometric, mean: 200}
slo: {ttft_s: 500 ms, tpot_s: 15 ms}
contract:
  samples: 200
  growth_volatility: 0.3
  offers:
    year: {usd_per_hour: 2.2, term_months: 12}
    long: {usd_per_hour: 1.5, term_months: 36, break_after_months: 12, break_fee_fraction: 0.3}
"""
MONTHS, PRICE = 24, 2.0


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def world(nodes, factors, yearly=0.1):
    nodes, factors = (np.broadcast_to(np.array(values, dtype=float), (1, MONTHS)) for values in (nodes, factors))
    discount = (1 + yearly) ** (-np.arange(MONTHS) / 12)
    return World(nodes, nodes * factors * PRICE * HOURS_PER_MONTH, factors, discount)


def quote(**terms):
    return Quote(**{"usd_per_hour": 1.5, "term_months": MONTHS, **terms})


def test_a_month_is_paid_when_it_begins_and_discounted():
    flat = world(3, 1)
    annuity = sum(1.1 ** (-month / 12) for month in range(MONTHS))
    assert flexible_usd(flat)[0] == pytest.approx(3 * 730 * PRICE * annuity)
    assert committed_usd(flat, quote())[0] == pytest.approx(3 * 730 * 1.5 * annuity)
    assert committed_usd(flat, quote(minimum_nodes=5))[0] == pytest.approx(5 * 730 * 1.5 * annuity)


def test_a_prepaid_share_is_not_discounted():
    whole = 3 * 730 * 1.5 * MONTHS
    assert committed_usd(world(3, 1), quote(prepayment_fraction=1))[0] == pytest.approx(whole)
    assert committed_usd(world(3, 1), quote(prepayment_fraction=1, term_months=100))[0] == pytest.approx(whole)


def test_what_grows_beyond_the_contract_is_flexible_until_it_is_signed_again():
    growing = world(np.arange(1, MONTHS + 1), 1, yearly=0)
    extra = sum(range(12)) * 2  # one node more each month, in either of two terms of a year
    signed = 12 * 1 + 12 * 13
    assert committed_usd(growing, quote(term_months=12))[0] == pytest.approx(730 * (signed * 1.5 + extra * PRICE))


def test_a_new_term_is_signed_where_quotes_stand():
    halved = world(1, [1] * 12 + [0.5] * 12, yearly=0)
    assert committed_usd(halved, quote(term_months=12))[0] == pytest.approx(730 * 12 * (1.5 + 0.75))
    assert committed_usd(halved, quote())[0] == pytest.approx(730 * 24 * 1.5)


def test_a_break_clause_is_used_when_it_pays_and_not_before_it_may_be():
    fallen = world(1, [1] * 3 + [0.2] * 21, yearly=0)
    fee = 0.25 * 1.5 * 18
    broken = quote(break_after_months=6, break_fee_fraction=0.25)
    assert committed_usd(fallen, broken)[0] == pytest.approx(730 * (6 * 1.5 + fee + 18 * 0.3))
    dear = quote(break_after_months=6, break_fee_fraction=0.85)
    assert committed_usd(fallen, dear)[0] == pytest.approx(730 * 24 * 1.5)


def test_what_is_dearer_than_staying_flexible_is_not_signed_again():
    flat = world(1, 1, yearly=0)
    assert committed_usd(flat, quote(usd_per_hour=3, term_months=6))[0] == pytest.approx(730 * (6 * 3 + 18 * PRICE))
    fallen = World(flat.nodes, flat.flexible_usd * 0.1, flat.quotes, flat.discount)  # an API; rents stay
    left = quote(break_after_months=6, break_fee_fraction=0.2)
    fee = 0.2 * 1.5 * 18
    assert committed_usd(fallen, left)[0] == pytest.approx(730 * (6 * 1.5 + fee + 18 * 0.1 * PRICE))


TERMS = st.fixed_dictionaries(
    {"usd_per_hour": st.floats(0.1, 0.9), "term_months": st.integers(7, 30), "prepayment_fraction": st.floats(0, 1)}
)


@given(terms=TERMS, fee=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_cost_is_in_proportion_to_the_rate(terms, fee, seed):
    """Where the load stays and quotes are below flexible: when they are broken does not depend on the rate."""
    factors = np.exp(np.random.default_rng(seed).normal(0, 0.5, MONTHS).cumsum())
    signed = quote(**terms, break_after_months=6, break_fee_fraction=fee)
    twice = signed.model_copy(update={"usd_per_hour": 2 * signed.usd_per_hour})
    once_usd, twice_usd = (committed_usd(world(3, factors), one)[0] for one in (signed, twice))
    assert twice_usd == pytest.approx(2 * once_usd)


def test_indifferent_terms_are_those_at_which_costs_are_even():
    falling = world(1, np.geomspace(1, 0.25, MONTHS))
    target = flexible_usd(falling)[0]
    signed = quote(usd_per_hour=1.2, break_after_months=6, break_fee_fraction=0.1)
    even = indifferent(falling, signed, PRICE)
    at_rate = signed.model_copy(update={"usd_per_hour": even["usd_per_hour"]})
    assert committed_usd(falling, at_rate)[0] == pytest.approx(target, rel=1e-6)
    assert even["discount"] == pytest.approx(1 - even["usd_per_hour"] / PRICE)
    at_fee = signed.model_copy(update={"break_fee_fraction": even["break_fee_fraction"]})
    assert committed_usd(falling, at_fee)[0] == pytest.approx(target, rel=1e-6)
    rigid = quote(usd_per_hour=1.4)
    term = indifferent(falling, rigid, PRICE)["term_months"]
    longer = [committed_usd(falling, quote(usd_per_hour=1.4, term_months=months))[0] for months in (term, term + 1)]
    assert longer[0] <= target < longer[1]


def test_no_fee_makes_even_what_is_cheaper_anyway():
    assert indifferent(world(1, 1), quote(break_after_months=6), PRICE)["break_fee_fraction"] is None


def test_paths_move_as_they_say():
    spec = ContractSpec(horizon_months=30, samples=4000)
    ten = price_factors(spec, "x", PricePath(factor=0.1), seed=1)
    assert ten.shape == (4000, 30)
    assert ten[0, [0, 6, 12, 29]] == pytest.approx([1, 10**-0.5, 0.1, 0.1])
    ranged = price_factors(spec, "x", PricePath(factor=(0.5, 2)), seed=1)[:, -1]
    assert 0.5 <= ranged.min() < 0.6
    assert 1.9 < ranged.max() <= 2
    assert np.median(ranged) == pytest.approx(1, abs=0.05)
    given = price_factors(spec, "x", PricePath(monthly=(1, 0.9, 0.7)), seed=1)
    assert given[0, [0, 1, 2, 29]] == pytest.approx([1, 0.9, 0.7, 0.7])
    restless = price_factors(spec, "x", PricePath(factor=1, volatility=0.3), seed=1)
    assert restless[:, 24].mean() == pytest.approx(1, abs=0.03)
    assert np.log(restless[:, 24]).std() == pytest.approx(0.3 * 2**0.5, rel=0.05)
    grown = load_factors(ContractSpec(growth_per_year=0.5, horizon_months=25, samples=2), seed=1)
    assert grown[0, [0, 12, 24]] == pytest.approx([1, 1.5, 2.25])


def test_the_same_seed_gives_the_same_bytes_and_strategies_share_their_samples(scenario):
    first, again, other, fewer = (
        contract(resolve(scenario, overrides), estimate=True)
        for overrides in ([], [], ["seed=2"], ["contract.offers={year: {usd_per_hour: 2.2, term_months: 12}}"])
    )
    assert to_json(first) == to_json(again)
    assert expected(first) != expected(other)
    assert expected(fewer).items() <= expected(first).items()


def expected(document):
    return {
        (path["name"], row["name"]): row["expected_usd"] for path in document["paths"] for row in path["strategies"]
    }


def test_the_document_says_who_regrets_what(scenario):
    document = contract(resolve(scenario, []), estimate=True)
    assert [path["name"] for path in document["paths"]] == ["flat", "same tier as seen", "10x in 12 months"]
    for path in document["paths"]:
        rows = path["strategies"]
        assert sum(row["cheapest_share"] for row in rows) >= 1
        assert all(row["p5_usd"] <= row["p50_usd"] <= row["p95_usd"] and row["regret_usd"] >= 0 for row in rows)
        assert all(row["p95_usd_ci95"][0] < row["p95_usd"] < row["p95_usd_ci95"][1] for row in rows)
        assert rows[0]["expected_usd"] == min(row["expected_usd"] for row in rows)
    by_name = expected(document)
    assert by_name["flat", "long"] < by_name["flat", "year"] < by_name["flat", "flexible"]
    assert by_name["10x in 12 months", "flexible"] < by_name["10x in 12 months", "year"]
    worst = {name: max(row["regret_usd"] for path in document["paths"] for row in path["strategies"]
                       if row["name"] == name) for name in ("flexible", "year", "long")}  # fmt: skip
    assert document["least_regret"] == {"name": min(worst, key=worst.get), "regret_usd": min(worst.values())}


def test_an_api_can_be_what_one_stays_flexible_with(scenario):
    overrides = [
        "contract.flexible=deepseek-v3.2",
        "contract.growth_volatility=0",
        "contract.paths={down: {factor: 0.5}}",
    ]
    document = contract(resolve(scenario, overrides), estimate=True)
    tokens = 60 * 730 * 3600 / 1e6
    lengths = resolve(scenario, []).lengths
    usd = tokens * (lengths[0].mean() * 0.28 + lengths[1].mean() * 0.42)
    assert document["flexible"]["monthly_usd"] == pytest.approx(usd)
    assert document["flexible"]["by_the_token"]
    row = next(row for row in document["paths"][0]["strategies"] if row["name"] == "year")
    annuity = sum(1.08 ** (-month / 12) for month in range(36))
    assert row["expected_usd"] == pytest.approx(document["load"]["nodes"] * 730 * 2.2 * annuity)  # rents do not move


def test_nothing_is_signed_against_what_is_free(scenario, tmp_path):
    free = "{name: free, input_usd_per_million: 0, output_usd_per_million: 0}"
    made = "provenance: {basis: assumed, source: a test, as_of: 2026-11-01}"
    (tmp_path / "free.yaml").write_text(f"api_tiers:\n  gift: {free[:-1]}, {made}}}\n")
    with pytest.raises(ScenarioError, match="'gift' costs nothing"):
        contract(resolve(scenario, [f"catalog={tmp_path / 'free.yaml'}", "contract.flexible=gift"]), estimate=True)


def test_a_load_that_all_but_vanishes_still_takes_a_node(scenario):
    gone = ["contract.growth_per_year=-0.99", "contract.horizon_months=60", "contract.growth_volatility=0"]
    document = contract(resolve(scenario, gone), estimate=True, spare_nodes=0)
    assert document["load"]["nodes_at_the_end"]["p50"] == 1
    assert all(row["expected_usd"] > 0 for path in document["paths"] for row in path["strategies"])


def test_old_prices_are_told_of_and_factors_are_of_their_month(scenario):
    asked = ["contract.offers={}", "as_of=2027-01-01"]
    document = contract(resolve(scenario, asked), estimate=True)
    for name in (document["flexible"]["name"], *document["offers"]):
        assert any(note.startswith(f"price {name} is of") for note in document["warnings"]), name
    (fall,) = (path for path in document["paths"] if path["name"] == "10x in 12 months")
    assert {month: spread["p50"] for month, spread in fall["factors"].items()} == pytest.approx(
        {"12": 0.1, "24": 0.1, "35": 0.1}
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["node=a100x1", "contract.offers={}"], "no quote to sign for a100x1"),
        (["contract.flexible=h100x8-on-demand"], "no price by the hour of h100x1"),
        (["contract.flexible=deepseek-v4-article"], "price unknown"),
        (["contract.paths={x: {factor: [2, 1]}}"], "begins with the lower"),
        (["contract.paths={x: {}}"], "give one of"),
    ],
)
def test_mistakes_are_named(scenario, overrides, says):
    with pytest.raises(ScenarioError, match=says):
        contract(resolve(scenario, overrides), estimate=True)


def test_the_catalogs_quotes_are_signed_where_the_scenario_has_none(scenario):
    overrides = ["contract.offers={}", "price={quote: {usd_per_hour: 2, term_months: 6}}"]
    assert set(contract(resolve(scenario, overrides), estimate=True)["offers"]) == {"the scenario's quote"}
    assert {"h100x1-rent-1y", "h100x1-rent-3y"} <= set(
        contract(resolve(scenario, overrides[:1]), estimate=True)["offers"]
    )


def test_it_is_printed_in_four_formats_and_drawn(scenario):
    document = contract(resolve(scenario, []), estimate=True)
    table = render(document, "table")
    assert "If prices: 10x in 12 months" in table
    assert table.splitlines()[-1].startswith("least regret: ")
    assert json.loads(render(document, "json"))["samples"] == 200
    assert "least_regret.name," in render(document, "csv")
    assert "| --- |" in render(document, "markdown")
    assert "same tier as seen" in json.dumps(costs(document).to_dict())
