"""Runs beside each other, the page of a run, and the charts of both: what is drawn is what was measured."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from capsim.charts import compare as compare_charts
from capsim.charts import run as run_charts
from capsim.charts import sweep as sweep_charts
from capsim.cli import main
from capsim.cli.compare import _figures
from capsim.compare import compare
from capsim.errors import ScenarioError
from capsim.experiment import run
from capsim.metrics import curves
from capsim.scenario import resolve
from capsim.store import load, of_run, save
from capsim.sweep.pareto import with_best

SCENARIO = """\
name: small <b> chat
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 20}
  prompt_tokens: {kind: lognormal, mu: 6, sigma: 1, maximum: 4000}
  output_tokens: {kind: geometric, mean: 60}
  requests: 400
slo: {ttft_s: 0.1 s, tpot_s: 50 ms}
replications: 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scenario and three runs of it: as it is, with another KV format, and with another seed."""
    place = tmp_path_factory.mktemp("runs")
    (place / "small.yaml").write_text(SCENARIO)
    for name, settings in (("base", []), ("fp8", ["kv_format=fp8"]), ("seed", ["seed=2"])):
        save(run(resolve(place / "small.yaml", settings)), place / name)
    return place


@pytest.fixture
def capsim(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return SimpleNamespace(stdout=captured.out, stderr=captured.err, returncode=end.value.code)

    return call


def figures(base, other):
    document = compare(base, [other])
    json.dumps(document)
    return {figure["metric"]: figure for figure in document["others"][0]["figures"]}


def test_a_run_is_read_as_it_was_written(folder):
    done = run(resolve(folder / "small.yaml"))
    saved = load(folder / "base")
    pd.testing.assert_frame_equal(saved.replications, of_run(done).replications)
    assert saved.replications["ttft_s_p95"].mean() == pytest.approx(saved.summary["ttft_s"]["p95"])
    assert saved.replications["goodput"].mean() == pytest.approx(saved.summary["goodput"])
    measured = sum(one.totals["offered"] - one.warmup for one in done.replications)
    assert len(saved.requests()) == measured


def test_a_run_beside_itself_differs_in_nothing(folder):
    document = compare(load(folder / "base"), [load(folder / "base")])
    (other,) = document["others"]
    assert other["configuration"] == []
    assert all(figure["difference"] == 0 and figure["significant"] is False for figure in other["figures"])
    assert all(line["difference_usd"] == 0 for line in other["cost"])


def test_the_same_random_numbers_narrow_the_interval(folder):
    base, fp8 = load(folder / "base"), load(folder / "fp8")
    paired = figures(base, fp8)["e2e_s_mean"]
    differences = fp8.replications["e2e_s_mean"] - base.replications["e2e_s_mean"]
    assert paired["difference"] == pytest.approx(differences.mean())
    apart = replace(fp8, summary=fp8.summary | {"run": fp8.summary["run"] | {"seed": 9}})
    assert np.ptp(figures(base, apart)["e2e_s_mean"]["ci95"]) > 3 * np.ptp(paired["ci95"])


def test_only_what_differs_in_the_configuration_is_told(folder):
    (other,) = compare(load(folder / "base"), [load(folder / "fp8")])["others"]
    changed = {row["key"]: (row["base"], row["other"]) for row in other["configuration"]}
    assert changed["kv_format"] == ("bf16", "fp8")
    assert set(changed) == {"kv_format", "resolved.memory.blocks", "resolved.memory.block_bytes"}


def test_another_seed_is_not_paired_and_one_replication_has_no_interval(folder):
    base, seed = load(folder / "base"), load(folder / "seed")
    assert compare(base, [seed])["others"][0]["paired"] is False
    single = [replace(saved, replications=saved.replications[:1]) for saved in (base, seed)]
    assert figures(*single)["ttft_s_p95"]["ci95"] is None


def test_latencies_of_an_overload_are_withheld(folder):
    base = load(folder / "base")
    seen = figures(base, replace(base, summary=base.summary | {"saturated": True}))
    assert "ttft_s_p95" not in seen
    assert "requests_per_s" in seen


def test_an_unknown_price_is_never_nothing(folder):
    base = load(folder / "base")
    unknown = base.summary | {"cost": {"price": "price unknown", "monthly_usd": None, "lines": []}}
    (other,) = compare(base, [replace(base, summary=unknown)])["others"]
    assert len(other["cost"]) > 1
    assert all(line["other_usd"] is None and line["difference_usd"] is None for line in other["cost"])


def test_what_a_run_does_not_have_is_left_out(folder):
    base = load(folder / "base")
    without = replace(base, replications=base.replications.assign(goodput=np.nan))
    assert "goodput" in figures(base, base)
    assert "goodput" not in figures(base, without)


def test_the_table_says_what_differs_and_what_may_be_chance(capsim, folder):
    done = capsim("compare", folder / "base", folder / "fp8", folder / "seed")
    assert done.returncode == 0
    assert re.search(r"kv_format\s+bf16\s+fp8", done.stdout)
    assert "the same random numbers in both" in done.stdout
    assert "random numbers of their own" in done.stdout
    assert "may be chance" in done.stdout


def test_differences_of_goodput_are_percentage_points():
    figure = {"metric": "goodput", "base": 0.5, "other": 0.45, "difference": -0.05, "ratio": 0.9,
              "ci95": [-0.061, 0.01], "significant": False, "separable": None}  # fmt: skip
    _, row = _figures({"figures": [figure]})
    assert row[:6] == ["Goodput", "50.00%", "45.00%", "-5.00 pp", "", "-6.10 pp to +1.00 pp"]


def test_a_scenario_file_is_simulated_to_be_compared(capsim, folder):
    done = capsim("compare", folder / "small.yaml", folder / "base", "--format", "json")
    (other,) = json.loads(done.stdout)["others"]
    assert all(figure["difference"] == 0 for figure in other["figures"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["base"], "needs two runs"), (["base", "."], "holds no run"), (["base", "nowhere"], "holds no run")],
)
def test_what_cannot_be_compared_is_said(capsim, folder, arguments, message):
    done = capsim("compare", *(folder / name for name in arguments))
    assert done.returncode == 2
    assert message in done.stderr


def test_a_spoilt_run_is_named(folder, tmp_path):
    (tmp_path / "summary.json").write_text("{")
    (tmp_path / "replications.parquet").write_bytes((folder / "base" / "replications.parquet").read_bytes())
    with pytest.raises(ScenarioError, match=f"{tmp_path}: cannot be read"):
        load(tmp_path)


def test_the_report_is_one_file_that_needs_no_network(capsim, folder, tmp_path):
    page = tmp_path / "page.html"
    assert capsim("report", folder / "base", "--out", page).returncode == 0
    text = page.read_text()
    assert "small &lt;b&gt; chat" in text
    assert not re.search(r"<script[^>]+src=|@import|url\(|\b(?:src|href)=", text.split("<script")[0])
    assert text.count("<script") - text.count('"<script') == 1
    assert "@media print" in text
    places = re.findall(r'class="chart" id="(\w+)"', text)
    specs = json.loads(re.search(r"Object\.entries\((\{.*\})\)\) vegaEmbed", text)[1].replace("<\\/", "</"))
    assert places == list(specs)
    assert all(word in text for word in ("Rests on", "Monthly cost", load(folder / "base").summary["run"]["id"]))


def test_curves_are_the_distribution_of_what_was_measured(folder):
    requests = load(folder / "base").requests()
    seen = curves.latency_curves(requests, ("e2e_s",))
    e2e_s = (requests["finished_s"] - requests["asked_s"]).to_numpy()
    for share in (0.25, 0.5, 0.95):
        at = seen.loc[np.isclose(seen["share"], share), "seconds"].item()
        assert at == pytest.approx(np.quantile(e2e_s, share, method="inverted_cdf"))


def test_the_timeline_keeps_the_area_under_every_level(folder):
    segments = load(folder / "base").segments()
    segments = segments[segments["replication"] == 0]
    seen = curves.timeline(segments, kv_blocks=1000, replicas=1)
    span_s = seen["time_s"][1] - seen["time_s"][0]
    for level in ("running", "waiting"):
        area = (segments[level] * segments["duration_s"]).sum()
        assert seen[level].sum() * span_s == pytest.approx(area, rel=0.02)


def drawn(chart):
    """The chart as a picture: whatever Vega refuses fails here."""
    picture = chart.properties(width=300).to_dict()
    vl_convert = pytest.importorskip("vl_convert")
    svg = vl_convert.vegalite_to_svg(picture)
    assert svg.startswith("<svg")
    return svg


def test_charts_of_a_run_can_be_drawn(folder):
    saved = load(folder / "base")
    seen = curves.timeline(saved.segments().query("replication == 0"), 1000, 1)
    assert "TTFT" in drawn(run_charts.latencies(curves.latency_curves(saved.requests(), ("ttft_s", "e2e_s"))))
    drawn(run_charts.occupancy(seen, 3.0))
    assert "waiting" in drawn(run_charts.batch(seen, 3.0))
    assert "attention" in drawn(run_charts.step_time(curves.component_shares(saved.summary["step_time_share"])))


def test_runs_are_laid_over_each_other(folder):
    parts = [
        curves.latency_curves(load(folder / name).requests(), ("ttft_s",)).assign(run=name) for name in ("base", "fp8")
    ]
    svg = drawn(compare_charts.latencies(pd.concat(parts), "ttft_s"))
    assert "base" in svg
    assert "fp8" in svg


POINTS = pd.DataFrame({
    "node": ["small", "small", "big", "big"], "workload.arrival.rate_per_s": [2, 11, 2, 11],
    "status": ["done", "failed", "done", "done"], "reason": ["", "does not fit", "", ""],
    "sessions_passing": [10.0, np.nan, 30.0, 25.0], "monthly_usd": [100.0, np.nan, 300.0, 300.0],
    "ttft_s_p95": [0.9, np.nan, 0.2, 0.4],
})  # fmt: skip


def test_the_heatmap_marks_failed_points_with_their_reason_in_the_order_of_the_sweep():
    chart = sweep_charts.heatmap(POINTS, "node", "workload.arrival.rate_per_s", "sessions_passing", "sessions")
    svg = drawn(chart)
    assert "reason: does not fit" in svg
    assert svg.index(">small<") < svg.index(">big<")
    assert svg.index(">2<") < svg.index(">11<")


def test_what_nothing_beats_is_told_and_an_unknown_cost_is_not_drawn():
    best = with_best(POINTS, "ttft_s_p95", "monthly_usd")
    assert dict(zip(best.index, best["best"], strict=True)) == {2: "best", 3: "beaten", 0: "best"}
    labels = {"ttft_s_p95": "TTFT p95, seconds", "monthly_usd": "USD a month"}
    svg = drawn(sweep_charts.pareto(best, "ttft_s_p95", "monthly_usd", labels, 0.5, ["node"]))
    assert "inside the SLO" in svg
