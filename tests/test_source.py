"""What users write is read once, with its lines, and refused where it is hostile."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.scenario.spec import Scenario
from capsim.source import load, override, validate

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: -#'\"1.é", max_size=6)
KEYS = st.text("abc", min_size=1, max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "s.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@given(values=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), flow=st.booleans())
def test_values_are_those_of_the_plain_loader_and_every_key_has_its_line(tmp_path_factory, values, flow):
    path = tmp_path_factory.mktemp("yaml") / "s.yaml"
    path.write_text(yaml.safe_dump(values, default_flow_style=flow, allow_unicode=True), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    source = load(path)
    assert source.values == yaml.safe_load(path.read_text(encoding="utf-8")) == values
    for key in values:
        assert key in lines[source.line((key,)) - 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb:\n  - *x\n", "s.yaml:3: aliases (*x) are not supported"),
        ("a: 1\nb: " + "[" * 60 + "]" * 60, "s.yaml:2: nested more than 50 deep"),
        ("a: " + "[" * 400_000, "nest"),
        ("a: " + "{b: " * 100_000, "s.yaml:1: nested more than 50 deep"),
        ("a: 1\nb: [1\n", "s.yaml:3: not valid YAML"),
        ("a: 2026-99-99\n", "not valid YAML"),
        ("a: 1\n[b, c]: 1\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("- a\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("a: 1\nb: {c: 1, c: 2}\n", "s.yaml:2 b.c: given twice (first in line 2)"),
    ],
)
def test_what_no_such_file_needs_is_refused_with_its_line(written, text, message):
    with pytest.raises(ScenarioError) as caught:
        load(written(text))
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["2026-99-99", "[" * 3000, "{"])
def test_overrides_that_are_no_yaml_are_refused(written, value):
    with pytest.raises(ScenarioError, match="value is not valid YAML"):
        override(load(written("a: 1\n")), f"a={value}")


def test_a_reader_is_told_of_fifty_mistakes_and_how_many_more_there_are(written):
    source = load(written("".join(f"key{index}: 1\n" for index in range(2000))))
    begun = time.perf_counter()
    with pytest.raises(ScenarioError) as caught:
        validate(Scenario, source.values, source)
    assert time.perf_counter() - begun < 2
    told = str(caught.value).splitlines()
    assert len(told) == 51
    assert "more mistakes" in told[-1]
    assert "unknown key" in str(caught.value)


def test_a_catalog_of_mistakes_is_not_read_to_its_end(written):
    path = written("devices:\n" + "".join(f"  d{index}: {{}}\n" for index in range(1000)))
    with pytest.raises(ScenarioError, match=r"devices.d\d+: not checked any more") as caught:
        load_catalog([path])
    assert len(caught.value.problems) < 70
