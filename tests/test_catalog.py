"""The catalog holds together, and users' files add to it."""

from datetime import date

import pytest
import yaml

from capsim.catalog import REFERENCES, SPECS, load_catalog
from capsim.catalog.listing import rows
from capsim.errors import ScenarioError
from capsim.scenario import resolve

CATALOG = load_catalog()
NODE = """\
nodes:
  our-box:
    provenance: {basis: measured, source: our own rack, as_of: 2026-10-01}
    name: Our box
    device: h100-sxm
    devices: 2
    engine: vllm
prices:
  our-price:
    provenance: {basis: measured, source: our contract, as_of: 2026-10-01}
    name: contract
    node: our-box
    kind: rent
    usd_per_hour: 3
"""
FACT = "{basis: vendor, source: abc, as_of: 2026-10-01}"
SCENARIO = """\
model: llama-3.1-8b
node: our-box
catalog: facts.yaml
workload: {arrival: {kind: poisson, rate_per_s: 1}, prompt_tokens: 100, output_tokens: 10, requests: 100}
"""


@pytest.fixture
def scenario(tmp_path):
    (tmp_path / "facts.yaml").write_text(NODE)
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.mark.parametrize("kind", REFERENCES)
def test_shipped_entries_name_what_is_there(kind):
    for spec in getattr(CATALOG, kind).values():
        for name, named_kind in REFERENCES[kind].items():
            named = getattr(spec, name)
            assert set(named if isinstance(named, tuple) else [named]) - {None} <= set(getattr(CATALOG, named_kind))


def test_every_node_has_a_calibration_under_its_own_engine():
    pairs = {f"{node.device}/{node.engine}" for node in CATALOG.nodes.values()}
    assert pairs <= set(CATALOG.calibrations)
    assert all(key == f"{spec.device}/{spec.engine}" for key, spec in CATALOG.calibrations.items())


def test_devices_of_several_in_a_node_have_a_link():
    for node in CATALOG.nodes.values():
        assert node.devices == 1 or CATALOG.devices[node.device].link_bytes_per_s


def test_prices_of_a_box_are_those_of_its_devices():
    for key, price in CATALOG.prices.items():
        single = f"{key.split('x8')[0]}x1{key.split('x8')[-1]}"
        if "x8" in key and single in CATALOG.prices and price.all_in_usd_per_hour:
            assert price.all_in_usd_per_hour == pytest.approx(8 * CATALOG.prices[single].all_in_usd_per_hour)


@pytest.mark.parametrize("node", sorted({price.node for price in CATALOG.prices.values()}))
def test_a_node_is_on_demand_by_default_where_it_can_be(node):
    ways = [price.name.startswith("on demand") for price in CATALOG.prices.values() if price.node == node]
    assert ways[0] or not any(ways)


@pytest.mark.parametrize("kind", SPECS)
def test_lists_are_rectangular_and_whole(kind):
    table = rows(kind, CATALOG, date(2026, 11, 24))
    assert len(table) == 1 + len(getattr(CATALOG, kind))
    assert {len(row) for row in table} == {len(table[0])}
    assert all(row[-2] and row[-1] for row in table)


def test_prices_older_than_half_a_year_are_marked():
    def stale(kind, today):
        return {row[0] for row in rows(kind, CATALOG, today) if row[-1].endswith("stale")}

    assert "h100x8-on-demand" not in stale("prices", date(2026, 11, 16))
    assert "h100x8-on-demand" in stale("prices", date(2026, 11, 17))
    assert "deepseek-v3.2" in stale("api_tiers", date(2026, 11, 17))
    assert stale("models", date(2036, 1, 1)) == set()


def test_a_format_that_a_device_cannot_compute_in_is_refused(scenario):
    setting = ["node=h100x1", "kv_format=nvfp4"]
    with pytest.raises(ScenarioError, match="NVIDIA H100 SXM does not compute in fp4, which nvfp4 KV needs"):
        resolve(scenario, setting)
    assert resolve(scenario, ["node=b200x1", "kv_format=nvfp4"]).kv_format.name == "nvfp4"


def test_a_user_s_entries_are_found_with_their_provenance(scenario):
    resolved = resolve(scenario)
    assert resolved.node.devices == 2
    assert resolved.basis["node"][1].source == "our own rack"
    assert resolved.price.usd_per_hour == 3
    assert "our-box" not in load_catalog().nodes


def test_a_user_s_entry_replaces_the_shipped_one_in_its_place(scenario):
    (scenario.parent / "more.yaml").write_text(
        "devices:\n  h100-sxm:\n    provenance: {basis: datasheet, source: a larger card, as_of: 2026-10-01}\n"
        "    name: H100 96 GB\n    kind: gpu\n    memory_bytes: 96 GB\n    memory_bytes_per_s: 4 TB/s\n"
        "    bf16_flops: 989 TFLOP/s\n    power_w: 700\n"
    )
    resolved = resolve(scenario, [f"catalog=[{scenario.parent / 'facts.yaml'}, {scenario.parent / 'more.yaml'}]"])
    assert resolved.device.memory_bytes == 96e9
    assert list(load_catalog([scenario.parent / "more.yaml"]).devices) == list(CATALOG.devices)


def test_mistakes_of_a_user_s_file_come_with_line_and_with_the_scenario_s(scenario):
    broken = NODE.replace("devices: 2", "devices: 0").replace("kind: rent", "knd: rent") + "gadgets: {}\n"
    (scenario.parent / "facts.yaml").write_text(broken.replace("basis: measured, source: our contract", "basis: hope"))
    scenario.write_text(SCENARIO + "sead: 4\n")
    with pytest.raises(ScenarioError) as caught:
        resolve(scenario)
    text = str(caught.value)
    assert "facts.yaml:6 nodes.our-box.devices: must be > 0 (got 0)" in text
    assert "facts.yaml:13 prices.our-price.knd: unknown key (did you mean 'kind'?)" in text
    assert "facts.yaml:10 prices.our-price.provenance.basis: unknown value 'hope'" in text
    assert "facts.yaml:10 prices.our-price.provenance.source: is required" in text
    assert "facts.yaml:15 gadgets: unknown kind 'gadgets'" in text
    assert "scenario.yaml:5 sead: unknown key (did you mean 'seed'?)" in text
    assert "our-box'" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes:\n  a: {name: x, device: h100-sxm, devices: 1, engine: vllm}\n", ":2 nodes.a.provenance: is required"),
        (NODE.replace("h100-sxm", "h100"), ":5 nodes.our-box.device: unknown 'h100'"),
        (NODE.replace("node: our-box", "node: our-bx"), "prices.our-price.node: unknown 'our-bx' (did you mean"),
        (
            f"kv_formats:\n  a: {{provenance: {FACT}, name: a, key_bits: 4, value_bits: 4, engines: [nope]}}\n",
            ":2 kv_formats.a.engines: unknown 'nope'",
        ),
        ("nodes: 5\n", ":1 nodes: expected entries by their keys"),
        ("nodes:\n  a: 5\n", ":2 nodes.a: expected an entry of nodes"),
        (NODE.replace("01}", f"01, values: {{x: {FACT}}}}}", 1), "our-box.provenance.values.x: not a value of the"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_user_s_entry(tmp_path, text, message):
    path = tmp_path / "facts.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_catalog([path])
    assert message in str(caught.value)


@pytest.mark.parametrize("size", [".inf", ".nan", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize(
    ("kind", "key", "field"),
    [
        ("kv_formats", "fp8", "key_bits"), ("weight_formats", "fp8", "dense_bytes"),
        ("devices", "h100-sxm", "memory_bytes"), ("devices", "h100-sxm", "memory_bytes_per_s"),
        ("devices", "h100-sxm", "bf16_flops"), ("devices", "h100-sxm", "power_w"),
        ("calibrations", "h100-sxm/vllm", "layer_s"),
    ],
)  # fmt: skip
def test_nothing_of_a_user_s_is_endless(tmp_path, kind, key, field, size):
    fields = getattr(CATALOG, kind)[key].model_dump(mode="json", exclude_none=True)
    entry = {**fields, "provenance": {"basis": "measured", "source": "ours", "as_of": date(2026, 10, 1)}}
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump({kind: {key: {**entry, field: "SIZE"}}}).replace("SIZE", size))
    with pytest.raises(ScenarioError, match=rf"{kind}.{key}.{field}: "):
        load_catalog([path])
    path.write_text(yaml.safe_dump({kind: {key: entry}}))
    assert getattr(load_catalog([path]), kind)[key] == getattr(CATALOG, kind)[key]
