"""Coefficients fitted on published speeds of one stream: they give the speeds back, and use no point that judges."""

import csv
from pathlib import Path

import pytest
import yaml

from capsim.calibrate.published import CHIPS, LLAMA_2_7B, fit_published, write_published
from capsim.catalog import FOLDER, PUBLISHED, load_catalog
from capsim.cli import main
from capsim.errors import ScenarioError

CATALOG = load_catalog()
POINTS = Path(__file__).parents[2] / "shared" / "published" / "open_points.csv"
COLUMNS = ("id", "use", "source", "date", "hardware", "model", "weight_precision", "engine", "isl", "metric", "value")
TRUE = {"memory_fraction": 0.8, "flops_fraction": 0.5, "layer_s": 1e-4}
BITS = {"F16": 16, "Q4_0": 4.5}


def speeds(chip):
    """Tokens a second of a chip that reaches what TRUE says, at two precisions."""
    device = CATALOG.devices[chip.devices[0]]
    model = LLAMA_2_7B
    matrices = model.attention_parameters + model.dense_parameters
    weights = matrices + model.embedding_parameters
    for precision, bits in BITS.items():
        read_s = weights * bits / 8 / (TRUE["memory_fraction"] * device.memory_bytes_per_s)
        kv_s = 64 * 2 * 4096 * 32 * 2 / (TRUE["memory_fraction"] * device.memory_bytes_per_s)
        flops = 2 * matrices * 512 + 2 * 512**2 * 4096 * 32
        computed_s = flops / (TRUE["flops_fraction"] * device.bf16_flops)
        yield precision, "decode_tok_s_tg128", 1 / (32 * TRUE["layer_s"] + read_s + kv_s)
        yield precision, "prefill_tok_s_pp512", 512 / (32 * TRUE["layer_s"] + read_s + computed_s)


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for chip in CHIPS:
            for precision, metric, value in speeds(chip):
                row = ["P1", "fit", "made", "2026-01", chip.hardware, "LLaMA-2-7B", precision, "llama.cpp", 512, metric]
                writer.writerow([*row, value])
                writer.writerow(["P2", "judge", *row[2:], 7 * value])
    return path


def test_a_chip_s_coefficients_come_back_and_judging_points_do_not_count(points):
    entries = fit_published(points)
    for chip in CHIPS:
        for device in chip.devices:
            entry = entries[f"{device}/{chip.engine}"]
            assert {name: entry[name] for name in TRUE} == pytest.approx(TRUE, rel=0.02)
            assert entry["provenance"]["basis"] == "calibrated"
            assert "P1" in entry["provenance"]["source"]
    borrowed = {key: entry["provenance"]["basis"] for key, entry in entries.items() if key.startswith("m5-max")}
    assert set(borrowed.values()) == {"assumed"}


def test_a_second_fit_changes_nothing_and_missing_chips_are_named(points, tmp_path):
    first = write_published(fit_published(points), tmp_path)
    assert all(before == {} for _, before, _ in first)
    written = (tmp_path / PUBLISHED).read_bytes()
    assert write_published(fit_published(points), tmp_path) == []
    assert (tmp_path / PUBLISHED).read_bytes() == written
    points.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ScenarioError, match=r"no speeds of Apple M4 \(10\) marked fit"):
        fit_published(points)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        (",512,", ",long,", "points.csv:2: is no speed of one stream: invalid literal"),
        (",F16,", ",heavy,", "points.csv:2: is no speed of one stream: could not convert"),
        (",2026-01,", ",lately,", "points.csv date: 'lately' is no date"),
        (",isl,", ",length,", "points.csv:1: lacks the columns isl"),
    ],
)
def test_points_that_cannot_be_read_are_named_and_nothing_is_written(points, tmp_path, capsys, wrong, right, message):
    points.write_text(points.read_text().replace(wrong, right))
    with pytest.raises(SystemExit) as ended:
        main(["refit", "--points", str(points), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not POINTS.is_file(), reason="needs the published points")
def test_the_shipped_entries_are_those_that_the_published_points_give():
    assert yaml.safe_load((FOLDER / PUBLISHED).read_text()) == fit_published(POINTS)


def test_prefill_of_the_ascend_910c_is_what_its_point_says():
    """CM01: 5,655 tokens/s of DeepSeek-R1 in INT8 a package, twice the bf16 rate."""
    model, device = CATALOG.models["deepseek-v3"], CATALOG.devices["ascend-910c"]
    active = model.active_parameters - 2 * model.embedding_parameters
    reached = 5655 * 2 * active / (2 * device.bf16_flops)
    assert CATALOG.calibrations["ascend-910c/vllm"].flops_fraction == pytest.approx(reached, rel=0.05)
