"""What KV formats cost: ratios to bf16 as they were published, some of them fitted and the rest only judged."""

import csv
from pathlib import Path

import pytest

import capsim.validate
from capsim.catalog import load_catalog
from capsim.cli import main
from capsim.errors import ScenarioError
from capsim.validate.kv_study import compare, fit_format, read_study

FILE = Path(capsim.validate.__file__).parent / "kv_study.yaml"
LLAMA, QWEN = "Llama-3.3-70B", "Qwen3-30B-A3B"


@pytest.fixture(scope="module")
def rows():
    return {(row["model"], row["figure"]): row for row in compare(FILE)["rows"]}


def apart(row):
    return max(abs(a - b) for a, b in zip(row["published"], row["simulated"], strict=True))


@pytest.mark.parametrize("model", [LLAMA, QWEN])
def test_capacity_is_met_within_two_percent(rows, model):
    row = rows[model, "capacity"]
    assert row["simulated"] == pytest.approx(row["published"], rel=0.02)


@pytest.mark.parametrize("model", [LLAMA, QWEN])
def test_offline_throughput_is_met_within_eight_points_without_a_fit(rows, model):
    row = rows[model, "throughput"]
    assert row["use"] == "judge"
    assert apart(row) <= 0.08


@pytest.mark.parametrize("batch", [1, 8, 32, 64])
def test_latencies_of_the_fit_are_met(rows, batch):
    assert apart(rows[LLAMA, f"latency at {batch}"]) <= 0.08


def test_the_penalty_grows_with_context(rows):
    short, long = (rows[LLAMA, f"decode rate of k8v4 over fp8 at {size}"] for size in ("3,000", "55,000"))
    assert -0.10 < short["simulated"][0] < 0
    assert long["simulated"][0] == pytest.approx(long["published"][0], abs=0.08)


@pytest.mark.parametrize("model", [LLAMA, QWEN])
def test_in_a_starved_burst_fp8_gains_and_every_turboquant_preset_loses(rows, model):
    fp8, *presets = rows[model, "burst"]["simulated"]
    assert fp8 > 1.4
    assert max(presets) < 1
    k3v4, three = presets[2:]
    assert presets[1] > k3v4 > three


def test_the_catalog_has_what_the_fit_gives():
    found = fit_format(read_study(FILE), "k8v4")
    entry = load_catalog().calibrations["h100-sxm/vllm"]
    for field, value in found.items():
        assert getattr(entry, field)["turboquant_k8v4"] == pytest.approx(value, rel=0.02)


def test_the_verb_shows_both_rows_of_a_figure(capsys):
    with pytest.raises(SystemExit) as end:
        main(["validate", str(FILE), "--format", "csv"])
    assert not end.value.code
    shown = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["use"] for row in shown} == {"fit", "judge"}
    assert len(shown) == 10 * 5 + 2


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("[fp8, k8v4,", "[fp8, k9v9,", "Llama-3.3-70B, k9v9: KV format k9v9 is not in the catalog"),
        ("hardware: H100 SXM", "hardware: Toaster", "device Toaster is not in the catalog"),
        ("capacity: [2.0, 2.4,", "capacity: [2.4,", "capacity of Llama-3.3-70B has 4 ratios of 5 formats"),
        ("  burst: {prompt", "  gust: {prompt", "loads lack burst"),
        ("prompt: 2048", "prompt: 0", "loads.latency.prompt: must be > 0"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_a_reason(tmp_path, wrong, right, message):
    path = tmp_path / "study.yaml"
    path.write_text(FILE.read_text().replace(wrong, right))
    with pytest.raises(ScenarioError, match=message):
        compare(path)
