"""The Python API: its examples and the tutorial run as they stand."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import capsim
from capsim import api

ROOT = Path(__file__).parents[1]


@pytest.fixture
def in_a_checkout(tmp_path, monkeypatch):
    """A folder like the root of the checkout, in which a reader may leave files."""
    for name in ("scenarios", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", capsim.__all__)
def test_examples_of_the_api_run(name, in_a_checkout):
    tests = doctest.DocTestFinder().find(getattr(capsim, name), name, globs=dict(vars(api)))
    assert sum(len(test.examples) for test in tests) > 1
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_the_tutorial_runs(in_a_checkout, capsys):
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "tutorial.md").read_text(), re.M | re.S):
        exec(block, names)
    said = capsys.readouterr().out
    assert "did you mean" in said
    assert set(names["table"]["status"]) == {"done"}
    assert names["capacity"].low >= 1


def test_a_setting_that_is_not_text_arrives_as_it_is():
    path = ROOT / "scenarios" / "edge-llama8b-mac.yaml"
    settings = {"slo.ttft_s": 1e-5, "workload.output_tokens": {"kind": "constant", "value": 7}, "price": None}
    scenario = capsim.load_scenario(path, settings).scenario
    assert scenario.slo.ttft_s == 1e-5
    assert scenario.workload.output_tokens.value == 7
    assert scenario.price is None


def test_importing_capsim_loads_nothing_heavy():
    code = "import sys, capsim; print([m for m in ('numpy', 'pandas', 'simpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        capsim.simulat  # noqa: B018
