"""From kernels to an engine's step: the constants that made the figures are found again, on points marked fit alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from capsim.calibrations.engine_steps import (
    FILE,
    FOLDER,
    POOLED,
    engine_step,
    engine_steps,
    read_engine_steps,
    write_engine_steps,
)
from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.validate import step_fit
from capsim.validate.as_run import as_run
from capsim.validate.points import Point, Published, read_points
from capsim.validate.predict import predict, resolved_of

PUBLISHED = Path(__file__).parents[2] / "shared" / "published" / "open_points.csv"
TRUTH = {"kernel_factor": 1.2, "layer_s": 4e-5, "prefill_expert_layer_s": 2e-3}
POINT = Point(
    "P1", "a source", "2026-05-17", "H100 SXM", "1", "gpt-oss-20b", "mxfp4", "bf16", "vLLM", "tp1", "256", "32",
    "closed", "1 (2 requests)", "", (),
)  # fmt: skip


def points(truth, metrics=("median_itl", "median_ttft")):
    """Points of a small and a large batch whose figures are what an engine with these constants would show."""
    for users, requests in ((1, 2), (64, 64)):
        empty = tuple(Published(metric, 1.0, "s", "fit") for metric in metrics)
        point = replace(POINT, concurrency_or_rate=f"{users} ({requests} requests)", figures=empty)
        told = step_fit._ready(point, Path()).figures(truth)
        figures = tuple(Published(figure.metric, figure.simulated, "s", "fit") for figure in told)
        judge = Published("output_tok_s", 1e9, "tok/s", "judge")
        yield replace(point, figures=(*figures, judge))


def test_the_constants_of_an_engine_are_found_again(tmp_path):
    found = step_fit.fit_engine_steps(list(points(TRUTH)), tmp_path)
    assert list(found) == ["vllm", POOLED]
    assert found["vllm"].coefficients == pytest.approx(TRUTH, rel=0.03)
    assert max(off.largest for off in found["vllm"].errors.values()) < 0.01
    assert found["vllm"].coefficients == found[POOLED].coefficients
    assert {engine: old for engine, old, _ in write_engine_steps(tmp_path, found)} == {"vllm": {}, POOLED: {}}
    assert write_engine_steps(tmp_path, found) == []
    assert read_engine_steps(tmp_path) == found


def test_a_constant_that_no_figure_tells_is_pooled(tmp_path):
    found = step_fit.fit_engine_steps(list(points(TRUTH, ("median_itl",))), tmp_path)["vllm"]
    assert found.pooled == ("prefill_expert_layer_s",)
    assert set(found.errors) == {"median_itl"}


def test_points_that_judge_are_never_fitted_on(tmp_path):
    judged = replace(POINT, figures=(Published("median_itl", 5.0, "ms", "judge"),))
    with pytest.raises(ScenarioError, match="no point to fit"):
        step_fit.fit_engine_steps([judged], tmp_path)


def test_step_times_rest_on_the_engine_s_own_constants_or_on_all_engines_together():
    for label, engine in (("sglang", "sglang"), ("trt", "tensorrt-llm"), ("llama.cpp", POOLED)):
        resolved = resolved_of(as_run(replace(POINT, engine=label)))
        for name, value in engine_steps()[engine].coefficients.items():
            assert getattr(resolved.efficiency, name) == value
        assert engine_step(resolved.engine_key).source in resolved.basis["step_time"][1].source
    assert load_catalog().calibrations["h100-sxm/vllm"].kernel_factor == 1.0


def test_shipped_constants_say_what_they_rest_on_and_beat_the_roofline_where_load_was_measured():
    for engine, step in read_engine_steps(FOLDER).items():
        assert step.errors, engine
        for metric in {"median_tpot", "median_itl"} & set(step.errors):
            assert step.errors[metric].median <= step.errors[metric].roofline


def test_the_line_of_a_single_stream_over_context_is_predicted():
    line = replace(
        POINT, isl="256..32k", osl="128", load="single", concurrency_or_rate="1", model="Llama-3.1-8B",
        weight_precision="bf16", figures=(
            Published("itl_intercept", 6.44, "ms", "fit"),
            Published("itl_slope_per_context_token", 4.37e-5, "ms/token", "fit"),
        ),
    )  # fmt: skip
    intercept, slope = predict(line).figures
    assert 16e9 / 3.35e12 < intercept.simulated < 8e-3
    assert 131_072 / 3.35e12 < slope.simulated < 2 * 131_072 / 3.35e12


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published points are not beside the checkout")
def test_a_refit_of_the_published_points_gives_the_shipped_bytes(tmp_path):
    write_engine_steps(tmp_path, step_fit.fit_engine_steps(read_points(PUBLISHED), PUBLISHED))
    assert (tmp_path / FILE).read_bytes() == (FOLDER / FILE).read_bytes()
