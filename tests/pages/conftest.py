"""A runs directory of its own for every test, and the app's pages as a visitor opens them."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from capsim import jobs, store
from capsim.experiment import run
from capsim.model_error import bracketed
from capsim.scenario import resolve

ROOT = Path(__file__).parents[2]
SMALL = ["workload.requests=60", "replications=2"]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CAPSIM_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def opened(runs):
    """Opens a page with what its URL says."""

    def open_page(name, **query):
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        for key, value in query.items():
            app.query_params[key] = value
        return app.run() if name == "plan" else app.switch_page(f"capsim/pages/{name}.py").run()

    return open_page


@pytest.fixture(scope="session")
def small_runs():
    """Two short runs of a scenario that differ in one setting."""
    path = ROOT / "scenarios/edge-llama8b-mac.yaml"
    return [bracketed(run(resolve(path, [*SMALL, *more]))) for more in ([], ["kv_format=bf16", "weights=bf16"])]


@pytest.fixture
def kept(runs, small_runs):
    """The same two as jobs that a visitor has started before: their names."""
    names = []
    for number, one in enumerate(small_runs):
        job = jobs.Job("run", {"scenario.yaml": f"# {number}"}, f"small {number}")
        jobs.keep(job)
        store.save(one, jobs.result_directory(job.name))
        names.append(job.name)
    return names


def text_of(app):
    """All that a page says."""
    kinds = ("markdown", "caption", "info", "warning", "error", "subheader", "success")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))
