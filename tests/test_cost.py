"""Costs by hand, line by line."""

import pytest

from capsim.api_tiers import ApiTier
from capsim.cli import tables
from capsim.cost import SECONDS_PER_MONTH, api_bill, monthly_cost, unit_costs
from capsim.prices import OwnPrice, Price

RENT = Price(name="on demand", node="h100x8", kind="rent", usd_per_hour=20.0)
OWN = Price(
    name="own", node="h100x8", kind="own",
    own=OwnPrice(
        purchase_usd=240_000, life_years=5, power_w=10_000, power_usage_effectiveness=1.2, electricity_usd_per_kwh=0.1,
        colocation_usd_per_kw_month=130, network_fraction=0.1, residual_fraction=0.25,
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
    })  # fmt: skip
    assert cost["monthly_usd"] == pytest.approx(sum(lines.values()))


def test_an_unknown_price_is_not_zero():
    cost = monthly_cost(None, 3)
    assert cost == {"price": "price unknown", "monthly_usd": None, "lines": []}
    assert unit_costs(cost["monthly_usd"], {"output_tokens": 5.0}) == {"usd_per_million_output_tokens": None}


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


@pytest.mark.parametrize("fields", [{}, {"usd_per_hour": 2.0, "own": OWN.own}])
def test_an_all_in_rate_and_a_bottom_up_price_exclude_each_other(fields):
    with pytest.raises(ValueError, match="own block"):
        Price(name="x", node="h100x8", kind="rent", **fields)
