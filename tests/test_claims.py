"""Every claim file runs; each verdict follows from its numbers by one rule."""

import csv
import io
import json
import math

import pytest

from capsim.claims import claims, find_files, load_claim
from capsim.claims.document import CONDITIONS, HOLDS, INCONSISTENT, UNTESTABLE, counted, verdict
from capsim.claims.formula import evaluate, names
from capsim.cli.claims import render
from capsim.errors import ScenarioError

FILES = {path.stem: path for path in find_files()}
BETWEEN = {"ds-2-twenty-seven", "ds-4-routing-overhead", "ds-6-discount", "edge-2-prefill", "hw-1-quoted"}
"""What is claimed lies between their cases."""
CLAIM = """\
claim: two and two are five
source: nobody
claimed: 5
unit: apples
formula: one + other
inputs: {one: 2, other: 2}
bull: {other: 2.6}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "apples.yaml"
    path.write_text(CLAIM)
    return path


@pytest.fixture(scope="module")
def document():
    return claims([FILES[name] for name in sorted(FILES)])


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_claim_runs_and_its_verdict_follows(document, name):
    _follows(next(row for row in document["claims"] if row["name"] == name))


def _follows(row):
    if row["value"] is None:
        assert row["verdict"] == UNTESTABLE
        assert row["why"]
        return
    (low, high), slack = row["claimed"], row["holds_within"]
    assert row["value"] == pytest.approx(evaluate(row["formula"], row["inputs"]))
    for case in ("bear", "bull"):
        assert row[case] == pytest.approx(evaluate(row["formula"], row["inputs"] | row[f"{case}_inputs"]))
    reach = {
        HOLDS: (row["value"], row["value"]),
        CONDITIONS: (min(row["value"], row["bear"], row["bull"]), max(row["value"], row["bear"], row["bull"])),
    }
    inside = {name: a <= high + slack * high and low - slack * low <= b for name, (a, b) in reach.items()}
    assert row["verdict"] == next((name for name, reached in inside.items() if reached), INCONSISTENT)


def test_arithmetic_of_the_audit(document):
    value = {row["name"]: row["value"] for row in document["claims"]}
    assert value["kv-1-million-tokens"] == pytest.approx(80 * 2 * 8 * 128 * 2 * 1e6 / 1e9)
    assert value["kv-2-compressed"] == pytest.approx(327.68 / 6)
    assert value["kv-2-sixfold"] == pytest.approx(4.18, abs=0.01)
    assert value["ds-6-discount"] == pytest.approx(0.9)
    assert value["ds-7-gap"] == pytest.approx(5 / 0.28)
    assert value["p-2-title"] == pytest.approx(15 / 0.028)
    assert value["hw-1-quoted"] == pytest.approx((1.41 / 90) / (2.65 / 6000))
    assert value["ds-1-active"] == pytest.approx(49.7, rel=0.01)
    assert 0.1 < value["p-4-mac-mini"] < 0.2


def test_verdicts_by_hand():
    assert verdict((5, 5), 5.4, 5.4, 5.4, 0.1) == HOLDS
    assert verdict((5, 5), 4, 4, 4.6, 0.1) == CONDITIONS
    assert verdict((5, 5), 4, 3, 4, 0.1) == INCONSISTENT
    assert verdict((1, 1000), 5, 5, 5, 0) == HOLDS
    assert verdict((1, 1000), 0.5, 0.1, 0.6, 0) == INCONSISTENT
    assert verdict((-5, -5), -5.4, -9, -5.4, 0.1) == HOLDS
    assert verdict((5, 5), 4.5, 4.5, 4.5, 0.1) == verdict((5, 5), 5.5, 5.5, 5.5, 0.1) == HOLDS
    assert verdict((600, 600), 12, 4, math.inf, 0.1) == CONDITIONS


def test_a_claim_of_ones_own(path):
    (row,) = claims([path])["claims"]
    assert (row["value"], row["bear"], row["bull"]) == (4, 4, 4.6)
    assert row["verdict"] == CONDITIONS
    path.write_text(CLAIM.replace("other: 2.6", "other: 2.4"))
    assert claims([path])["claims"][0]["verdict"] == INCONSISTENT


def test_formulas_are_arithmetic_and_nothing_else():
    assert names("a * (1 - b) ** 2 / c") == {"a", "b", "c"}
    assert evaluate("-a * (1 - b) ** 2 / c", {"a": 8, "b": 0.5, "c": 4}) == -0.5
    for bad in ("__import__('os')", "a.b", "a if b else c", "a +", "a < b", "'x'", "True"):
        with pytest.raises(ValueError, match="formula"):
            names(bad)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("one + other", "one + third", "'third', which is no input"),
        ("bull: {other", "bull: {third", "'third' is no input"),
        ("formula: one + other\n", "", "give a formula, or say why"),
        ("claimed: 5\n", "", "needs a claimed number"),
        ("claimed: 5", "claimed: [5, 4]", r"must be \[low, high\]"),
        ("formula: one + other", "formula: one / (other - 2)", "yaml:5 formula: .* no value for one = 2, other = 2"),
        ("formula: one + other", "formula: (one - 4) ** 0.5", "no value for one = 2"),
        ("formula: one + other", "formula: (one * 1e300) ** other", "no value for one = 2"),
        ("one: 2,", "one: {kind: kv_bytes, model: llama-3.1-70c, context_tokens: 9},", r"yaml:6 inputs.one: unknown"),
        ("one: 2,", "one: {kind: api_price, tier: llama-4-maverick-deepinfra, part: cached_input},", "price unknown"),
    ],
)
def test_mistakes_say_where_they_are(path, old, new, message):
    path.write_text(CLAIM.replace(old, new))
    with pytest.raises(ScenarioError, match=message):
        claims([path])


def test_cases_are_about_the_claim(document):
    """No bear case is nearer to what is claimed than the bull case."""
    for row in document["claims"]:
        if row["value"] is not None and row["name"] not in BETWEEN:
            low, high = row["claimed"]
            bear, bull = (max(low - row[case], row[case] - high, 0) for case in ("bear", "bull"))
            assert bull <= bear, row["name"]


def test_a_case_without_bound_is_told(path, monkeypatch):
    path.write_text(CLAIM.replace("other: 2}", "other: 0}"))
    monkeypatch.setattr(
        "capsim.claims.document.evaluate", lambda formula, numbers: math.inf if numbers["other"] else 1.0
    )
    document = claims([path])
    assert json.loads(render(document, "json"))["claims"][0]["bull"] is None
    assert "1 to no bound" in render(document, "table")


def test_unknown_names_and_every_format(document, path):
    with pytest.raises(ScenarioError, match="did you mean 'kv-2-sixfold'"):
        find_files(["kv-2-sixfolds"])
    assert find_files(["kv-2-sixfold", str(path)]) == [FILES["kv-2-sixfold"], path]
    assert sum(counted(document).values()) == len(FILES)
    rows = list(csv.DictReader(io.StringIO(render(document, "csv"))))
    assert [row["name"] for row in rows] == sorted(FILES)
    assert json.loads(render(document, "json"))["claims"][0]["name"] == sorted(FILES)[0]
    assert "rule: 'holds' where" in render(document, "table")
    alone = render(claims([path]), "markdown")
    assert "Formula" in alone
    assert "2, bull 2.6" in alone
    assert load_claim(path)[0].holds_within == 0.1
