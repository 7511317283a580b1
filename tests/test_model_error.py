"""Model error: what it is told by, that less knowledge is a wider bracket, and what it does to a run and a plan."""

from dataclasses import replace
from math import log

import pytest
import yaml
from measured_kernels import rows, write

from capsim.calibrate import calibrate
from capsim.capacity import instant
from capsim.capacity import model_error as plan_error
from capsim.cli import tables
from capsim.experiment import run
from capsim.measured import Error, Measured, Residual
from capsim.model_error import bracketed, model_error, runs, separable
from capsim.model_error.spread import Spread, judged, of_residual, pooled
from capsim.scenario import resolve
from capsim.steptime import Batch, PrefillChunk

SCENARIO = """\
model: llama-3.1-8b
node: {node}
kv_format: bf16
weights: bf16
workload:
  arrival: {arrival}
  prompt_tokens: 100
  output_tokens: 20
  requests: 300
slo: {{tpot_s: 20 ms}}
replications: 2
"""


@pytest.fixture
def scenario(tmp_path):
    def scenario(node="h100x1", arrival="{kind: closed, users: 1}", *overrides):
        path = tmp_path / "scenario.yaml"
        path.write_text(SCENARIO.format(node=node, arrival=arrival))
        return resolve(path, overrides)

    return scenario


def width(error):
    return log(error.step_time[1] / error.step_time[0])


def test_every_bracket_holds_the_simulated_figure_and_the_median_published_one():
    for (_, _, metric), spreads in judged().items():
        for spread in spreads:
            low, high = spread.factors
            assert low <= 1 <= high, metric
            assert log(low) - 1e-9 <= spread.mean <= log(high) + 1e-9, metric


def test_a_device_and_engine_that_were_judged_rest_on_their_own_figures(scenario):
    told = model_error(scenario("h200x1", "{kind: closed, users: 1}", "engine=tensorrt-llm"))
    here = [spread for key, spreads in judged().items() if key[:2] == ("h200-sxm", "tensorrt-llm")
            and key[2] in ("TPOT", "throughput") for spread in spreads]  # fmt: skip
    assert told.basis == "judged"
    assert told.figures == sum(spread.figures for spread in here)
    assert "tensorrt-llm on h200-sxm" in told.source


def test_the_less_is_known_the_wider_the_bracket(scenario):
    measured_elsewhere = model_error(scenario("gb300-nvl72", "{kind: closed, users: 1}", "engine=tensorrt-llm"))
    datasheet = model_error(scenario("ascend-910bx8"))
    assert measured_elsewhere.basis == "pooled"
    assert datasheet.basis == "assumed"
    assert width(measured_elsewhere) < width(datasheet)
    assert datasheet.step_time[0] <= 1 / 2
    assert datasheet.step_time[1] >= 2


def test_an_engine_judged_too_little_is_not_believed_more_than_the_others(scenario):
    told = model_error(scenario("h100x1"))
    few = pooled(judged()["h100-sxm", "vllm", "throughput"])
    assert few.figures < 8
    assert told.figures > 100
    assert told.metrics == {}  # how long requests wait is each engine's own


def test_figures_that_judge_the_kernels_that_ship_say_nothing_of_the_roofline(scenario):
    told = model_error(scenario("h200x1", "{kind: closed, users: 1}", "engine=tensorrt-llm", "calibration=none"))
    assert told.basis == "assumed"
    no_kernels = scenario("mi300x-x1", "{kind: closed, users: 1}", "engine=sglang", "weights=bf16", "calibration=none")
    assert model_error(no_kernels).basis == "judged"  # where none ship, the roofline is what was judged


def test_pooling_adds_what_the_groups_differ_by():
    apart = pooled([Spread(-0.2, 0.1, 10), Spread(0.2, 0.1, 10)])
    assert apart.mean == pytest.approx(0)
    assert apart.sd == pytest.approx((0.1**2 + 0.2**2) ** 0.5)
    assert apart.figures == 20
    assert pooled([]) is None


def test_residuals_of_normal_errors_give_their_standard_deviation():
    spread = of_residual(Error(mape=0.1 * (2 / 3.141592653589793) ** 0.5, largest=0.3, bias=0.0), 1000)
    assert spread.sd == pytest.approx(0.1, rel=1e-3)
    assert spread.factors[1] == pytest.approx(1.137, rel=1e-2)  # e^(1.28 x 0.1): nine of ten lie below


def test_measurements_of_ones_own_are_told_by_their_residuals(scenario, tmp_path):
    found = calibrate([write(tmp_path / "kernels.jsonl", rows(noise=0.02), device="h100-sxm")])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(found.document))
    told = model_error(scenario("h100x1", "{kind: closed, users: 1}", f"calibration={tmp_path / 'mine.yaml'}"))
    assert told.basis == "residuals"
    assert "no steps were measured" in told.source
    other = model_error(scenario("h200x1", "{kind: closed, users: 1}", f"calibration={tmp_path / 'mine.yaml'}"))
    assert other.basis == "assumed"  # carried over to another device


def test_brackets_that_overlap_are_not_separable():
    assert separable((1, 2), (3, 4))
    assert separable((3, 4), (1, 2))
    assert not separable((1, 3), (2, 4))


def test_a_scaled_model_scales_every_part_of_a_step(scenario):
    resolved = scenario()
    batch = Batch(3, (600.0,), (PrefillChunk(64, 10),), 1, read_growth=(3.0,))
    plain, slow = (one.step_time_model() for one in (resolved, replace(resolved, step_factor=1.5)))
    assert slow.step_time(batch)[:5] == pytest.approx([1.5 * part for part in plain.step_time(batch)[:5]])
    assert slow.step_time(batch).bound == plain.step_time(batch).bound
    decoding = batch._replace(prefill=(), finishing_prefills=0)
    (first, growth, steps), (_, slow_growth, slow_steps) = plain.decode_run(decoding), slow.decode_run(decoding)
    assert slow_growth == pytest.approx(1.5 * growth)
    assert slow_steps == steps
    assert first.total_s > 0


def test_a_lone_user_meets_step_times_at_both_ends(scenario):
    done = bracketed(run(scenario("ascend-910bx8")))
    told, factors = done.summary["model_error"], done.summary["model_error"]["step_time"]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        ends = [done.summary[name]["mean"] * factor for factor in factors]
        assert told[name]["mean"] == pytest.approx(ends, rel=1e-6)
    tokens = done.summary["throughput"]["output_tokens_per_s"]
    ends = [tokens / factor for factor in reversed(factors)]
    assert told["throughput"]["output_tokens_per_s"] == pytest.approx(ends, rel=1e-6)
    assert done.summary["ttft_s"]["ci95"] != told["ttft_s"]["mean"]  # two kinds, never one


def test_throughput_of_a_light_open_load_is_its_arrivals_whatever_the_error(scenario):
    done = bracketed(run(scenario("ascend-910bx8", "{kind: poisson, rate_per_s: 0.5}")))
    low, high = done.summary["model_error"]["throughput"]["requests_per_s"]
    assert high / low < 1.02
    low, high = done.summary["model_error"]["tpot_s"]["mean"]
    assert high / low > 3


def test_a_load_that_the_error_could_overturn_has_no_high_end_and_says_so(scenario):
    open_load = "{kind: poisson, rate_per_s: 1}"
    most = scenario("ascend-910bx8", open_load, "scheduler.max_num_seqs=1").saturation().requests_per_s
    done = bracketed(run(scenario("ascend-910bx8", f"{{kind: poisson, rate_per_s: {6 * most}}}",
                                  "scheduler.max_num_seqs=1", "workload.requests=1500")))  # fmt: skip
    told = done.summary["model_error"]
    assert told["saturated"] == [False, True]
    assert told["ttft_s"]["mean"][1] is None
    assert any("model error allows, the load has no steady state" in note for note in done.summary["warnings"])
    assert " or more" in tables.render_run(done.summary, "table")


def test_an_interrupted_run_has_no_bracket(scenario):
    done = run(scenario())
    stopped = replace(done, summary=done.summary | {"run": done.summary["run"] | {"interrupted": True}})
    assert bracketed(stopped).summary["model_error"] is None


def test_sessions_move_as_the_closed_form_does(scenario):
    resolved = scenario("ascend-910bx8", "{kind: poisson, rate_per_s: 1}", "workload.think_s=5 s")
    first = instant(resolved)
    factors = list(model_error(resolved).step_time)
    low, high = plan_error.sessions_bracket(resolved, factors, first, (100, 105))
    slow = instant(replace(resolved, step_factor=factors[1]))
    assert low == round(100 * slow.sessions / first.sessions) < 100
    assert high is None or high > 105
    text = plan_error.headline({"sessions": {"attached": [100, 105]}, "model_error": {"sessions": [low, high]}})
    assert text.startswith("100 sessions per node (105 miss the SLO; ")


def test_a_long_run_is_told_by_its_first_requests(scenario, monkeypatch):
    monkeypatch.setattr(runs, "MOST_REQUESTS", 100)
    done = bracketed(run(scenario("ascend-910bx8", "{kind: closed, users: 1}", "workload.warmup_requests=80")))
    told = done.summary["model_error"]
    assert told["requests"] == 100
    assert told["tpot_s"]["mean"][1] == pytest.approx(done.summary["tpot_s"]["mean"] * told["step_time"][1], rel=1e-6)
    assert "model error is told by the first 100 requests" in done.summary["warnings"]


def test_carrying_over_widens_the_bracket_step_by_step(scenario):
    """The very model, another on the same device, another device: with the same steps held out."""
    exact = scenario("h100x1")
    error = Error(mape=0.05, largest=0.1, bias=0.01)
    measured = Measured(
        kernels=exact.efficiency.measured.kernels[:1], environment={"threads": 1},
        residuals=(
            Residual(what="step", by="vllm", shape=exact.model.name, points=99, held_out=99, table=error, fit=error),
            Residual(what="gemm", by="torch", shape="", points=99, held_out=99, table=error, fit=error),
        ),
    )  # fmt: skip
    own = replace(exact, efficiency=exact.efficiency.model_copy(update={"measured": measured}))
    other = replace(own, model=own.model.model_copy(update={"name": "another"}))
    elsewhere = replace(own, node=own.node.model_copy(update={"device": "h200-sxm"}))
    told = [model_error(one) for one in (own, other, elsewhere)]
    assert [one.basis for one in told] == ["residuals", "residuals", "assumed"]
    assert width(told[0]) < width(told[1]) < width(told[2])
