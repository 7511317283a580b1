"""Costs by hand, line by line."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsim.api_tiers import ApiTier
from capsim.cli import tables
from capsim.cost import SECONDS_PER_MONTH, api_bill, known_first, monthly_cost, unit_costs
from capsim.prices import OwnPrice, Price, Quote, is_stale, stale_notes
from capsim.scenario import resolve
from capsim.scenario.lock import locked

RENT = Price(name="on demand", node="h100x8", kind="rent", usd_per_hour=20.0)
OWN = Price(
    name="own", node="h100x8", kind="own",
    own=OwnPrice(
        purchase_usd=240_000, life_years=5, power_w=10_000, power_usage_effectiveness=1.2, electricity_usd_per_kwh=0.1,
        colocation_usd_per_kw_month=130, network_fraction=0.1, residual_fraction=0.25, capital_rate=0.08,
        staff_usd_per_month=500,
    ),
)  # fmt: skip


def test_rent_is_by_the_hour_of_a_730_hour_month():
    assert monthly_cost(RENT, 3)["monthly_usd"] == 3 * 730 * 20


def test_owning_adds_up_from_its_lines():
    cost = monthly_cost(OWN, 2)
    lines = {line["name"]: line["monthly_usd"] for line in cost["lines"]}
    assert lines == pytest.approx({
        "depreciation": 2 * 240_000 * 0.75 / 60,
        "network": 2 * 24_000 / 60,
        "electricity": 2 * 10 * 1.2 * 730 * 0.1,
        "colocation": 2 * 10 * 130,
        "capital": 2 * (240_000 * (1 + 0.25) + 24_000) / 2 * 0.08 / 12,
        "staff": 2 * 500,
    })  # fmt: skip
    assert cost["monthly_usd"] == pytest.approx(sum(lines.values()))


def test_an_unknown_price_is_not_zero():
    cost = monthly_cost(None, 3)
    assert cost == {"price": "price unknown", "monthly_usd": None, "lines": []}
    assert unit_costs(cost["monthly_usd"], {"output_tokens": 5.0}) == {"usd_per_million_output_tokens": None}


@pytest.mark.parametrize(
    "way", [{"kind": "rent", "own": OWN.own}, {"kind": "own", "quote": Quote(usd_per_hour=1, term_months=6)}]
)
def test_what_is_owned_is_not_rented(way):
    with pytest.raises(ValueError, match="a quote is of kind rent, an own block of kind own"):
        Price(name="mixed up", node="h100x8", **way)


TOKENS = {"input_tokens_per_s": 1000.0, "cached_tokens_per_s": 600.0, "output_tokens_per_s": 50.0}


def test_a_cached_token_is_billed_as_one():
    tier = ApiTier(
        name="api", input_usd_per_million=0.28, cached_input_usd_per_million=0.028, output_usd_per_million=0.42
    )  # fmt: skip
    bill = api_bill(tier, TOKENS)
    month = SECONDS_PER_MONTH / 1e6
    lines = {line["name"]: (line["quantity"], line["monthly_usd"]) for line in bill["lines"]}
    assert lines == {
        "uncached input": pytest.approx((400 * month, 400 * month * 0.28)),
        "cached input": pytest.approx((600 * month, 600 * month * 0.028)),
        "output": pytest.approx((50 * month, 50 * month * 0.42)),
    }
    assert bill["monthly_usd"] == sum(usd for _, usd in lines.values())


def test_a_vendor_without_a_cache_price_bills_all_input_alike():
    tier = ApiTier(name="api", input_usd_per_million=2.0, output_usd_per_million=0.0)
    assert api_bill(tier, TOKENS)["monthly_usd"] == pytest.approx(1000 * SECONDS_PER_MONTH / 1e6 * 2)


def test_a_bill_without_an_output_price_keeps_what_is_known():
    bill = api_bill(ApiTier(name="api", input_usd_per_million=2.0), TOKENS)
    assert bill["monthly_usd"] is None
    assert bill["known_usd"] == pytest.approx(1000 * SECONDS_PER_MONTH / 1e6 * 2)
    assert {line["name"]: line["monthly_usd"] is None for line in bill["lines"]} == {
        "uncached input": False, "cached input": False, "output": True,
    }  # fmt: skip
    assert [row[0] for row in tables._api_rows(bill)[-2:]] == ["output", "total without output"]


def test_dollars_per_million_tokens():
    month_s = 730 * 3600
    assert unit_costs(7300.0, {"output_tokens": 1000.0}) == {
        "usd_per_million_output_tokens": pytest.approx(7300 / (1000 * month_s / 1e6))
    }
    assert unit_costs(7300.0, {"output_tokens": 0.0})["usd_per_million_output_tokens"] is None


@pytest.mark.parametrize(
    "fields",
    [{}, {"usd_per_hour": 2.0, "own": OWN.own}, {"usd_per_hour": 2.0, "quote": Quote(usd_per_hour=1, term_months=1)}],
)
def test_an_all_in_rate_and_a_bottom_up_price_exclude_each_other(fields):
    with pytest.raises(ValueError, match="own block"):
        Price(name="x", node="h100x8", kind="rent", **fields)


def test_a_quote_is_paid_to_its_minimum():
    quote = Price(name="q", node="h100x8", kind="rent", quote=Quote(usd_per_hour=20, term_months=12, minimum_nodes=4))
    assert monthly_cost(quote, 1)["monthly_usd"] == monthly_cost(quote, 4)["monthly_usd"] == 4 * 730 * 20
    assert monthly_cost(quote, 5)["monthly_usd"] == 5 * 730 * 20


@pytest.mark.parametrize(
    ("given", "says"),
    [({"break_fee_fraction": 0.5}, "break_after_months"), ({"break_after_months": 12}, "not inside the 12")],
)
def test_a_break_clause_must_make_sense(given, says):
    with pytest.raises(ValueError, match=says):
        Quote(usd_per_hour=20, term_months=12, **given)


SHARE = st.floats(0, 0.9)
USD = st.floats(0.01, 1e6)
WAYS = st.one_of(
    st.builds(lambda usd: {"kind": "rent", "usd_per_hour": usd}, USD),
    st.builds(lambda q: {"kind": "rent", "quote": q},
              st.builds(Quote, usd_per_hour=USD, term_months=st.integers(1, 60), minimum_nodes=st.integers(0, 50))),
    st.builds(lambda own: {"kind": "own", "own": own},
              st.builds(OwnPrice, purchase_usd=USD, life_years=st.floats(3, 6), power_w=st.floats(1, 1e5),
                        power_usage_effectiveness=st.floats(1, 2), electricity_usd_per_kwh=st.floats(0, 1),
                        colocation_usd_per_kw_month=st.floats(0, 300), network_fraction=SHARE,
                        residual_fraction=SHARE, capital_rate=SHARE, staff_usd_per_month=st.floats(0, 1e5))),
)  # fmt: skip


@given(way=WAYS, nodes=st.integers(1, 100))
def test_lines_add_up_and_have_units(way, nodes):
    cost = monthly_cost(Price(name="p", node="n", **way), nodes)
    assert cost["monthly_usd"] == pytest.approx(sum(line["monthly_usd"] for line in cost["lines"]))
    for line in cost["lines"]:
        assert line["unit"]
        assert line["monthly_usd"] == pytest.approx(line["quantity"] * line["unit_usd"])


@given(
    usd=st.tuples(USD, USD, USD), uncached=st.floats(0, 1e6), cached=st.floats(0, 1e6), output=st.floats(0, 1e6),
)  # fmt: skip
def test_uncached_cached_and_output_are_the_bill(usd, uncached, cached, output):
    names = ("input_usd_per_million", "cached_input_usd_per_million", "output_usd_per_million")
    tier = ApiTier(name="t", **dict(zip(names, usd, strict=True)))
    tokens = {"input_tokens_per_s": uncached + cached, "cached_tokens_per_s": cached, "output_tokens_per_s": output}
    month = SECONDS_PER_MONTH / 1e6
    bill = api_bill(tier, tokens)
    parts = sum(rate * month * each for rate, each in zip((uncached, cached, output), usd, strict=True))
    assert bill["monthly_usd"] == pytest.approx(parts, rel=1e-6, abs=1e-3)
    assert {line["unit"] for line in bill["lines"]} == {"million tokens"}


def test_an_unknown_cost_sorts_last():
    assert sorted([None, 3.0, 0.0], key=known_first) == [0.0, 3.0, None]


def test_a_price_is_stale_after_half_a_year():
    assert [is_stale(date(2026, 5, 20), date(2026, 11, day)) for day in (16, 17)] == [False, True]
    assert not is_stale("undated", date(2026, 11, 17))
    assert stale_notes({"k": date(2026, 5, 20)}, date(2026, 11, 25)) == [
        "price k is of 2026-05-20, more than 180 days old on 2026-11-25"
    ]


def test_the_day_of_a_run_is_in_its_warnings_alone(monkeypatch):
    chat = Path(__file__).parents[1] / "scenarios" / "chat-llama70b-h100.yaml"

    def on(day, overrides):
        monkeypatch.setattr("capsim.prices.date", type("Day", (date,), {"today": classmethod(lambda cls: day)}))
        resolved = resolve(chat, overrides)
        return locked(resolved), [note for note in resolved.warnings if "days old" in note]

    early, late = date(2026, 6, 1), date(2027, 6, 1)
    assert on(early, []) == (on(late, [])[0], [])
    assert "h100x8-on-demand" in on(late, [])[1][0]
    assert on(early, ["as_of=2026-06-01"]) == on(late, ["as_of=2026-06-01"])
