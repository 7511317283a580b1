"""Tiers: bills and whole nodes by hand, floors, and the slider."""

import json
from pathlib import Path

import pytest

from capsim.cli.tiers import render
from capsim.errors import Infeasible, ScenarioError
from capsim.tiers import load_tiers, tiers
from capsim.tiers.option import Option, monthly_usd

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
kv_format: bf16
as_of: 2026-11-25
workload: {preset: chat-azure23}
slo: {ttft_s: 1 s}
"""
TIERS = """\
benchmark: trivia
classes:
  - name: hard
    requests_per_s: 1
    prompt_tokens: 1000
    output_tokens: 100
    hit_rate: 0.5
    quality_floor: 80
    slo: {ttft_s: 2 s, tpot_s: 50 ms}
  - name: easy
    requests_per_s: 3
    prompt_tokens: 500
    output_tokens: 50
    slo: {ttft_s: 2 s, tpot_s: 50 ms}
tiers:
  - {name: api, api: claude-opus-4.6, quality: 90, quality_source: made up}
  - {name: own, scenario: scenario.yaml, quality: 60, quality_source: made up}
"""
MONTH_S = 730 * 3600


@pytest.fixture
def path(tmp_path):
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    path = tmp_path / "tiers.yaml"
    path.write_text(TIERS)
    return path


def test_bills_and_nodes_by_hand(path):
    document = tiers(*load_tiers(path))
    hard, easy = document["classes"]
    usd_a_request = (500 * 5 + 500 * 0.5 + 100 * 25) / 1e6
    assert hard["options"]["api"]["monthly_usd_alone"] == pytest.approx(usd_a_request * MONTH_S)
    assert "below the floor of 80" in hard["options"]["own"]["why_not"]
    assert 0 < easy["options"]["own"]["nodes"] < 1
    assert easy["options"]["own"]["monthly_usd_alone"] == pytest.approx(2.95 * 730)
    staged = document["staged"]
    assert staged["tiers"] == {"hard": "api", "easy": "own"}
    assert staged["monthly_usd"] == pytest.approx(usd_a_request * MONTH_S + 2.95 * 730)
    assert staged["quality"] == pytest.approx((1 * 90 + 3 * 60) / 4)
    assert document["all_on_one"]["own"] is None


def test_the_slider_goes_from_cheap_to_good(path):
    document = tiers(*load_tiers(path))
    cost, quality = zip(*((way["monthly_usd"], way["quality"]) for way in document["slider"]), strict=True)
    assert list(cost) == sorted(cost)
    assert list(quality) == sorted(quality)
    better = tiers(*load_tiers(path), quality=80)
    assert better["staged"]["quality"] == 90
    assert better["staged"]["monthly_usd"] > document["staged"]["monthly_usd"]
    with pytest.raises(Infeasible, match="the best has 90"):
        tiers(*load_tiers(path), quality=95)


def test_classes_share_the_nodes_of_a_tier(path):
    price = load_price()
    half = Option(1.0, "", nodes=0.5, price=price)
    assert monthly_usd([half, half], ["a", "a"]) == pytest.approx(2.95 * 730)
    assert monthly_usd([half, half], ["a", "b"]) == pytest.approx(2 * 2.95 * 730)
    more = Option(1.0, "", nodes=0.6, price=price)
    assert monthly_usd([half, more], ["a", "a"]) == pytest.approx(2 * 2.95 * 730)


def load_price():
    from capsim.catalog import load_catalog

    return load_catalog().prices["h100x1-on-demand"]


def test_a_kv_format_takes_its_loss_and_the_model_is_a_parameter(path):
    path.write_text(TIERS.replace("name: own,", "name: own, set: {kv_format: fp8},"))
    own = tiers(*load_tiers(path))["classes"][1]["options"]["own"]
    assert own["quality"] == pytest.approx(60 * 77.9 / 79.3, rel=1e-4)
    path.write_text(
        TIERS.replace("trivia", "GPQA-Diamond").replace(
            "scenario: scenario.yaml, quality: 60, quality_source: made up",
            "scenario: scenario.yaml, set: {model: llama-4-maverick, weights: fp8, node: h100x8}",
        )
    )
    own = tiers(*load_tiers(path))["classes"][1]["options"]["own"]
    assert own["quality"] == 69.8
    assert "model card" in own["quality_source"]


def test_without_a_score_a_tier_serves_nobody(path):
    path.write_text(TIERS.replace(", quality: 60, quality_source: made up", ""))
    document = tiers(*load_tiers(path))
    assert "quality unknown" in document["classes"][1]["options"]["own"]["why_not"]
    assert document["staged"]["tiers"] == {"hard": "api", "easy": "api"}
    path.write_text(TIERS.replace("quality_floor: 80", "quality_floor: 99"))
    with pytest.raises(Infeasible, match="no tier serves hard"):
        tiers(*load_tiers(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("api: claude-opus-4.6", "api: claude-opus-4.5", r"tiers.yaml:16: unknown .*did you mean"),
        ("name: own,", "name: own, set: {model: nobody},", r"tiers.yaml:17 tiers.1.set: model"),
        ("name: easy", "name: hard", "two classes have one name"),
        (", quality_source: made up}\n  - {name: own", "}\n  - {name: own", "needs a quality_source"),
        ("api: claude-opus-4.6, ", "", "give api"),
    ],
)
def test_mistakes_say_where_they_are(path, old, new, message):
    path.write_text(TIERS.replace(old, new))
    with pytest.raises(ScenarioError, match=message):
        tiers(*load_tiers(path))


def test_the_shipped_file_stages_over_three_tiers():
    shipped = Path(__file__).parents[1] / "scenarios" / "tiers" / "computer-use.yaml"
    document = tiers(*load_tiers(shipped))
    staged = document["staged"]
    assert len(set(staged["tiers"].values())) == 3
    assert staged["monthly_usd"] < document["all_on_one"]["frontier API"]["monthly_usd"] / 2
    table = render(document, "table")
    assert "staged: $" in table
    assert "Slider" in table
    assert json.loads(render(document, "json"))["staged"] == staged
    assert render(document, "csv").startswith("metric,value")
