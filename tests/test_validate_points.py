"""Published points: run as they were run, judged apart from those that are fitted, and never worse than cited."""

import csv
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from capsim.cli import main
from capsim.errors import ScenarioError
from capsim.validate.as_run import as_run
from capsim.validate.errors import summarise, validate_points
from capsim.validate.names import Skip
from capsim.validate.points import COLUMNS, Point, Published, read_points
from capsim.validate.predict import predict
from capsim.validate.trtllm_bench import GUIDE

PUBLISHED = Path(__file__).parents[2] / "shared" / "published" / "open_points.csv"
UNIFORM = "lengths uniform in [0.8L,L] (mean 0.9L); closed loop"
CLOSED = Point(
    "P1", "a source", "2026", "H100 SXM 80GB", "1", "Llama-3.1-8B", "fp8", "fp8", "vLLM", "tp1", "512", "128", "closed",
    "4", UNIFORM, (Published("median_tpot", 10.0, "ms", "judge"), Published("output_tok_s", 400.0, "tok/s", "fit")),
)  # fmt: skip


def point(**changes):
    return replace(CLOSED, **changes)


def write(path, *points):
    with path.open("w", newline="") as out:
        rows = csv.DictWriter(out, COLUMNS)
        rows.writeheader()
        for each in points:
            conditions = {key: value for key, value in vars(each).items() if key != "figures"}
            rows.writerows(conditions | vars(figure) for figure in each.figures)
    return path


def test_a_closed_loop_asks_ten_times_a_user_with_lengths_down_to_four_fifths():
    workload = as_run(CLOSED).scenario["workload"]
    assert workload["arrival"] == {"kind": "closed", "users": 4}
    assert workload["requests"] == 40
    assert workload["prompt_tokens"] == {"kind": "uniform", "low": 410, "high": 512}
    assert workload["output_tokens"] == {"kind": "uniform", "low": 102, "high": 128}


def test_a_flood_is_queued_at_once_and_a_single_stream_is_one_request():
    flood = as_run(point(load="offline (all queued)", concurrency_or_rate="3000 requests queued at once", notes=""))
    assert flood.scenario["workload"]["arrival"]["users"] == flood.scenario["workload"]["requests"] == 3000
    assert flood.scenario["workload"]["prompt_tokens"] == 512
    single = as_run(point(load="single", concurrency_or_rate="1", osl="short gen"))
    assert single.scenario["workload"]["requests"] == 1
    assert single.assumed == ("answers of 128 tokens",)


def test_stated_spreads_and_counts_of_requests_are_kept():
    stated = as_run(point(isl="~20000 (+-15%)", osl="~2000 (+-15%)", concurrency_or_rate="8 (150 requests)", notes=""))
    assert stated.scenario["workload"]["requests"] == 150
    assert stated.scenario["workload"]["prompt_tokens"] == {"kind": "uniform", "low": 17000, "high": 23000}
    assert stated.assumed == ()


@pytest.mark.parametrize(
    ("label", "layout"),
    [
        ("TP8", (8, 1, 1, False)), ("tp8 ep8", (8, 1, 1, True)), ("TP1PP4", (1, 4, 1, False)),
        ("DEP4", (1, 1, 4, True)), ("DEP2,PP2", (1, 2, 2, True)), ("tp8 ep8 dp-attn", (1, 1, 8, True)),
        ("", (1, 1, 1, False)),
    ],
)  # fmt: skip
def test_labels_of_layouts_are_read(label, layout):
    found = as_run(point(parallelism=label)).scenario["parallelism"]
    assert tuple(found[name] for name in ("tp", "pp", "dp", "expert")) == layout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parallelism": "TP8 MTP3"}, "speculative decoding"),
        ({"engine": "SGLang PD + DeepEP"}, "separate nodes"),
        ({"model": "Nemotron"}, "model Nemotron is not in the catalog"),
        ({"weight_precision": "Q2"}, "weight format Q2"),
        ({"kv_precision": "kv7"}, "KV format kv7"),
        ({"isl": "256..125k"}, "not stated well enough"),
        ({"concurrency_or_rate": "some"}, "not stated well enough"),
        ({"parallelism": "TP8 EP2"}, "experts over 2 of 8 ranks"),
    ],
)
def test_what_is_not_modelled_says_so(changes, reason):
    with pytest.raises(Skip, match=reason):
        as_run(point(**changes))


def test_what_is_not_stated_is_assumed_and_said():
    quantised = point(engine="trt", kv_precision="auto/unknown", notes="")
    assert as_run(quantised).scenario["kv_format"] == "fp8"
    assert any("FP8 KV" in text for text in as_run(quantised).assumed)
    assert as_run(point(kv_precision="")).scenario["kv_format"] == "bf16"


FLOOD = {"load": "offline (all queued)", "notes": "", "concurrency_or_rate": "3000 requests queued at once"}


@pytest.mark.parametrize(
    ("changes", "seqs", "tokens"),
    [
        # by hand: (8 x 150.75 GB - 671 GB) x 0.95 of room, 2 x 61 x 128 x 56 bytes a token, 2,000 tokens a request
        ({"model": "DeepSeek-R1-0528", "parallelism": "DEP8", "isl": "1000", "osl": "1000"}, 384, 2048),
        ({"model": "DeepSeek-R1-0528", "parallelism": "DEP8", "isl": "1024", "osl": "8192"}, 64, 2048),
        ({"model": "Llama-3.1-8B", "parallelism": "TP1", "isl": "20000", "osl": "2000"}, 96, 20096),
        ({"model": "gpt-oss-20b", "parallelism": "TP1", "isl": "1000", "osl": "1000"}, 2048, 8192),
    ],
)  # fmt: skip
def test_floods_of_tensorrt_llm_have_the_limits_that_its_benchmark_tunes(changes, seqs, tokens):
    scheduler = as_run(point(engine="TensorRT-LLM", hardware="H200", **FLOOD, **changes)).scenario["scheduler"]
    assert (scheduler["max_num_seqs"], scheduler["max_num_batched_tokens"]) == (seqs, tokens)


def test_a_pipeline_runs_a_tuned_batch_in_each_stage():
    def limit(label):
        found = as_run(point(engine="TensorRT-LLM", model="Llama-3.3-70B", parallelism=label, **FLOOD))
        return found.scenario["scheduler"]["max_num_seqs"]

    assert limit("TP1PP4") % 4 == 0
    assert limit("TP4") == pytest.approx(limit("TP1PP4"), rel=0.3), "the same memory, in parts"


def test_the_guides_runs_have_the_settings_that_it_states():
    stated = as_run(
        point(source=GUIDE, engine="TensorRT-LLM", model="DeepSeek-R1", hardware="H200", kv_precision="",
              parallelism="TP8 EP8", concurrency_or_rate="1024", notes="")
    )  # fmt: skip
    scenario = stated.scenario
    assert (scenario["weights"], scenario["kv_format"]) == ("fp8_block", "bf16")
    assert scenario["parallelism"] == {"tp": 1, "pp": 1, "dp": 8, "expert": True}
    assert (scenario["scheduler"]["max_num_seqs"], scenario["memory"]["fraction"]) == (128, 0.8)
    assert scenario["workload"]["requests"] == 5120


def test_a_point_that_does_not_fit_is_skipped():
    assert "does not fit" in predict(point(model="DeepSeek-R1")).skipped


def test_a_long_prompt_leaves_room_for_those_who_decode():
    flood = point(engine="trt", isl="20000", load="offline (all queued)", notes="",
                  concurrency_or_rate="100 requests queued at once")  # fmt: skip
    assert predict(flood).batch > 8


def simulated():
    """What the simulation says of the point, in published units."""
    found = {figure.metric: figure.simulated for figure in predict(CLOSED).figures}
    return found["median_tpot"] * 1e3, found["output_tok_s"]


def test_a_point_that_the_simulator_made_has_no_error_and_another_one_exactly_its_own(tmp_path):
    tpot_ms, tokens_s = simulated()
    right = (Published("median_tpot", tpot_ms, "ms", "judge"), Published("output_tok_s", tokens_s, "tok/s", "fit"))
    slow = (Published("median_tpot", tpot_ms / 1.25, "ms", "judge"),)
    odd = (Published("weights", 3.0, "apples", "judge"),)
    points = (point(figures=(*right, *odd)), point(id="P2", figures=slow), point(id="P3", engine="unheard of"))
    document = validate_points(write(tmp_path / "points.csv", *points))
    assert (document["points"], document["judged"]) == (3, 2)
    assert document["skipped"] == [{"reason": "engine unheard of is not in the catalog", "count": 1}]
    assert document["left_out"] == [{"figure": "weights is not predicted", "count": 1}]
    (fit,), (judge,) = document["errors"]["fit"], document["errors"]["judge"]
    assert (fit["metric"], fit["figures"], fit["worst_point"]) == ("throughput", 1, "P1")
    assert fit["median_abs_error"] == pytest.approx(0, abs=1e-12)
    assert (judge["metric"], judge["figures"], judge["worst_point"]) == ("TPOT", 2, "P2")
    assert judge["worst_error"] == pytest.approx(0.25, rel=1e-9)
    assert judge["median_abs_error"] == pytest.approx(0.125, rel=1e-9)
    (worst,) = document["worst"]
    assert worst["point"] == "P2"
    assert sum(worst["step_time_share"].values()) == pytest.approx(1)


def test_the_order_of_devices_counts_pairs_that_are_alike_in_all_else(tmp_path):
    fast, slow = (
        point(id=name, hardware=name, figures=(Published("output_tok_s_per_gpu", value, "tok/s/GPU", "judge"),))
        for name, value in (("B200", 900.0), ("H100 SXM", 400.0))
    )
    upside_down = point(id="x", isl="256", hardware="B200", figures=(replace(slow.figures[0], value=100.0),))
    other = point(id="y", isl="256", figures=(replace(slow.figures[0], value=400.0),))
    done = [predict(each) for each in (fast, slow, upside_down, other)]
    assert summarise(tmp_path, done)["device_order"] == {"pairs": 2, "right": 1}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("value", "much", "value is not a number"), ("use", "train", "use must be fit or judge"), ("value", "0", "zero")],
)
def test_a_row_that_cannot_be_read_is_named_by_its_line(tmp_path, column, value, message):
    path = write(tmp_path / "points.csv", CLOSED)
    rows = list(csv.DictReader(path.open()))
    rows[1][column] = value
    with path.open("w", newline="") as out:
        table = csv.DictWriter(out, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(ScenarioError, match=message) as error:
        read_points(path)
    assert error.value.problems[0].line == 3


def test_a_file_without_a_point_to_judge_says_why(tmp_path):
    path = write(tmp_path / "points.csv", point(model="unheard of"))
    with pytest.raises(ScenarioError, match="model unheard of is not in the catalog"):
        validate_points(path)


def test_a_figure_below_zero_or_in_another_unit_is_left_out_and_a_condition_that_cannot_be_is_named(tmp_path):
    below, other = Published("median_tpot", -1.0, "ms", "judge"), Published("median_tpot", 1.0, "furlong", "judge")
    with pytest.raises(ScenarioError, match="median_tpot below zero; median_tpot in furlong"):
        summarise(tmp_path, [predict(point(figures=(below, other)))])
    assert predict(point(concurrency_or_rate="0")).skipped == "workload.arrival.users: must be > 0 (got 0)"


def test_lengths_stay_whole_numbers_beside_a_point_without_one(tmp_path):
    found = read_points(write(tmp_path / "points.csv", point(), point(id="P2", isl="")))
    assert [each.isl for each in found] == ["512", ""]


def test_the_verb_keeps_fit_and_judge_apart(tmp_path, capsys):
    path, shown = write(tmp_path / "points.csv", CLOSED), {}
    for format_ in ("table", "json", "csv"):
        with pytest.raises(SystemExit) as end:
            main(["validate", str(path), "--format", format_])
        assert end.value.code == 0
        shown[format_] = capsys.readouterr().out
    assert "Points that only judge" in shown["table"]
    assert "Points that constants may be fitted on" in shown["table"]
    assert "Assumed" not in shown["table"]
    rows = list(csv.DictReader(shown["csv"].splitlines()))
    assert [(row["use"], row["metric"]) for row in rows] == [("fit", "throughput"), ("judge", "TPOT")]
    assert set(json.loads(shown["json"])["errors"]) == {"fit", "judge"}


def test_what_is_far_off_is_told_with_what_its_steps_are_made_of(tmp_path):
    slow = point(figures=(Published("median_tpot", simulated()[0] / 2, "ms", "judge"),))
    (row,) = summarise(tmp_path, [predict(slow)])["made_of"]
    assert (row["model"], row["metric"], row["figures"]) == ("Llama-3.1-8B", "TPOT", 1)
    assert row["bias"] == pytest.approx(1)
    assert sum(row["step_time_share"].values()) == pytest.approx(1)
    near = point(figures=(Published("median_tpot", simulated()[0], "ms", "judge"),))
    assert summarise(tmp_path, [predict(near)])["made_of"] == []


def test_published_points_are_drawn_beside_the_simulated(tmp_path, capsys):
    path, drawn = write(tmp_path / "points.csv", CLOSED), tmp_path / "points.svg"
    with pytest.raises(SystemExit) as end:
        main(["validate", str(path), "--chart", str(drawn)])
    assert end.value.code == 0
    text = drawn.read_text()
    assert "Simulated against published" in text
    assert "TPOT, published (ms)" in text
    assert "TTFT" not in text
    with pytest.raises(SystemExit) as end:
        main(["validate", str(path), "--chart", str(tmp_path / "points.nothing")])
    assert end.value.code
    assert "name it .svg or .png" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published points are not beside the checkout")
def test_no_error_has_grown_by_more_than_a_tenth_since_it_was_cited():
    document = validate_points(PUBLISHED)
    key = ("source", "device", "engine", "metric")
    with (files("capsim.validate") / "cited.csv").open() as table:
        cited = {
            (row["use"], *(row[name] for name in key)): float(row["median_abs_error"]) for row in csv.DictReader(table)
        }
    found = {
        (use, *(row[name] for name in key)): row["median_abs_error"]
        for use, rows in document["errors"].items() for row in rows
    }  # fmt: skip
    assert found.keys() >= cited.keys()
    grown = {where: (error, found[where]) for where, error in cited.items() if found[where] > 1.1 * error + 0.002}
    assert grown == {}
