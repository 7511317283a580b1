"""Every other page: empty, full, and asked for what is not there."""

import measured_kernels as machine
import pytest
import yaml
from conftest import ROOT, text_of

from capsim import jobs
from capsim.json_text import to_json
from capsim.levers import load_stack, stack
from capsim.pages.parts import sweeps
from capsim.sweep import load_sweep, run_sweep
from capsim.whole_file import write_whole

PAGES = sorted(path.stem for path in (ROOT / "capsim/pages").glob("*.py") if path.stem != "__init__")
NOWHERE = {"run": "0" * 12, "runs": ["../../etc", "0" * 12], "sweep": "../..", "kind": "passwd", "calibration": "x"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_stands_without_any_run_and_with_nonsense_in_its_url(opened, page):
    for query in ({}, NOWHERE):
        app = opened(page, **query)
        assert not app.exception
        assert app.main.children


@pytest.mark.parametrize("page", ["run", "compare", "sweep", "stack"])
def test_an_empty_page_says_what_to_do(opened, page):
    assert "press" in opened(page).info[0].value.lower()


def test_a_run_in_depth(opened, kept, small_runs):
    app = opened("run", run=kept[0])
    assert not app.exception
    assert small_runs[0].summary["run"]["id"] in text_of(app)
    latency = app.table[0].value
    assert list(latency.iloc[:, 0])[:2] == ["TTFT", "TPOT"]
    for tab in ("Timeline", "Step time", "Requests", "Assumptions"):
        app = opened("run", run=kept[0], tab=tab)
        assert not app.exception


def test_a_run_that_is_not_kept(opened, kept):
    for name in ("0" * 12, "../../etc/passwd"):
        app = opened("run", run=name)
        assert not app.exception
        assert app.error


def test_two_runs_beside_each_other(opened, kept):
    app = opened("compare", runs=kept)
    assert not app.exception
    figures = app.table[0].value
    assert "verdict" in figures.columns
    differing = next(table.value for table in app.table if "What differs" in table.value)
    assert "weights" in list(differing["What differs"])


def test_one_run_is_none_to_compare(opened, kept):
    assert "two runs or more" in text_of(opened("compare", runs=kept[:1]))


@pytest.fixture
def swept(runs):
    """A sweep that a visitor has started before."""
    scenario = yaml.safe_load((ROOT / "scenarios/edge-llama8b-mac.yaml").read_text())
    scenario["workload"]["requests"], scenario["replications"] = 40, 1
    grid = {"weights": ["int4", "bf16"], "kv_format": ["bf16", "nonsense"]}
    job = sweeps.job("run", yaml.safe_dump(scenario), grid, "small")
    jobs.keep(job)
    run_sweep(load_sweep(jobs.input_file(job.name, "sweep.yaml")), jobs.result_directory(job.name), jobs=1)
    return job.name


def test_a_sweep_with_failed_points(opened, swept):
    app = opened("sweep", sweep=swept)
    assert not app.exception
    points = app.dataframe[0].value
    assert list(points["status"]) == ["done", "failed", "done", "failed"]
    assert "unknown" in points["reason"].iloc[1]


def test_a_sweep_too_large_or_not_plain_is_refused(opened):
    app = opened("sweep")
    for text, says in (("1:2, {a: 1}", "plain values"), (", ".join(map(str, range(1, 300))), "points are more")):
        app.text_input(key="values-scheduler.max_num_seqs").set_value(text).run()
        assert not app.exception
        assert says in app.error[0].value


def test_break_even_sets_nodes_beside_price_lists(opened):
    app = opened("breakeven")
    assert not app.exception
    assert any("By the token" in table.value for table in app.table)


def test_break_even_of_a_node_without_a_price_says_so(opened):
    app = opened("breakeven", scenario="agentic-coding")
    assert not app.exception


def test_calibrations_say_how_far_they_are_off(opened):
    app = opened("calibration")
    assert not app.exception
    assert "median error" in app.table[0].value.columns
    assert "kernels_bench" in app.code[0].value


def test_the_steps_of_a_run_ring_what_was_measured(opened, kept, tmp_path):
    app = opened("calibration")
    measured = machine.write(tmp_path / "kernels.jsonl", machine.rows(noise=0.01))
    app.file_uploader(key="measurements").upload("kernels.jsonl", measured.read_bytes(), "text/plain").run()
    for number, key in enumerate(("of-shipped", "of-own")):
        assert len(ringed(app)) == number
        app.selectbox(key=f"run-{key}").set_value(kept[0]).run()
        assert not app.exception
    assert len(ringed(app)) == 2


def ringed(app):
    """The charts that show steps of a run."""
    return [chart for chart in app.get("vega_lite_chart") if "steps of the run" in chart.proto.spec]


def test_a_file_that_holds_no_measurements_is_refused(opened):
    app = opened("calibration")
    app.file_uploader(key="measurements").upload("kernels.jsonl", b"{not json\n" * 3, "text/plain").run()
    assert not app.exception
    assert "kernels.jsonl" in app.error[0].value


def test_the_catalog_marks_old_prices_and_has_the_words(opened):
    app = opened("catalog", kind="prices")
    assert "stale" in app.warning[0].value
    words = opened("catalog", kind="glossary").dataframe[0].value
    assert "TTFT" in list(words["metric"])


def test_a_price_of_ones_own_holds_for_the_visit(opened):
    app = opened("catalog", kind="prices")
    area = app.text_area[0]
    area.set_value(area.value.replace("2.95", "1.95")).run()
    next(button for button in app.button if button.label == "Use it for this visit").click().run()
    assert not app.exception
    assert "own hold" in app.success[0].value
    assert "$1.95 an hour" in list(app.dataframe[0].value["price"])
    app.switch_page("capsim/pages/plan.py").run()
    assert "--set catalog=catalog.yaml" in app.code[0].value


def test_an_entry_that_is_none_is_refused_with_its_line(opened):
    app = opened("catalog", kind="prices")
    app.text_area[0].set_value("h100x1-on-demand: {name: x, colour: red}").run()
    next(button for button in app.button if button.label == "Use it for this visit").click().run()
    assert not app.exception
    assert "unknown key" in app.error[0].value


def test_a_stack_is_pulled_by_a_job_and_drawn(opened, monkeypatch):
    monkeypatch.setattr(jobs, "start", jobs.keep)
    app = opened("stack")
    next(button for button in app.button if button.label == "Pull").click().run()
    assert not app.exception
    (name,) = jobs.names("stack")
    spec = load_stack(jobs.input_file(name, "stack.yaml"))
    alone = spec.model_copy(update={"levers": spec.levers[:2]})
    directory = jobs.result_directory(name)
    directory.mkdir(parents=True)
    write_whole(directory / jobs.STACK, [to_json(stack(alone, estimate=True))])
    app = opened("stack")
    assert not app.exception
    assert "joint gain" in text_of(app)
