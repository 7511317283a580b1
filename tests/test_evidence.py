"""What a calibration rests on, as tables and charts: points held out, residuals, and the sizes measured."""

import measured_kernels as machine
import pandas as pd
import pytest
from test_calibrate import MODEL, whole_steps

from capsim.calibrate import calibrate, evidence
from capsim.calibrate.tables import grouped, tables_of
from capsim.calibrations import shipped
from capsim.catalog import load_catalog
from capsim.charts import calibration as charts


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurements file of kernels that vary by 2 %, and of steps of which every other is twice as long."""
    rows = [{**row, "step_s": 0.01 * (1 + index % 2)} for index, row in enumerate(whole_steps())]
    path = tmp_path_factory.mktemp("measured") / "k.jsonl"
    return machine.write(path, machine.rows(noise=0.02), [MODEL, *rows])


@pytest.fixture(scope="module")
def points(measured):
    return evidence.points(measured)


def test_points_are_those_held_out_and_their_errors_are_the_residuals(measured, points):
    assert set(points["device"]) == {"cpu-test"}
    assert {"gemm", "decode_attention", "kv_write", "experts", "step"} <= set(points["what"])
    assert not {"memory_read", "memory_copy"} & set(points["what"])
    assert set(points.loc[points["what"] == "decode_attention", "format"]) == set(machine.PAIR_BYTES)
    off = (points["predicted_s"] / points["measured_s"] - 1).abs().groupby([points["what"], points["shape"]]).mean()
    for one in calibrate([measured]).residuals:
        error = one.fit if one.what == "step" else one.table
        if (one.what, one.shape) in off.index:
            assert off[one.what, one.shape] == pytest.approx(error.mape, rel=1e-9)
    assert off["gemm"].max() < 0.1
    assert off["step"].max() > 0.3


def test_residuals_stand_in_a_table_with_blanks_where_nothing_was_held_out():
    table = evidence.residual_table(shipped("h100-sxm", "vllm").residuals)
    assert len(table) == len(shipped("h100-sxm", "vllm").residuals)
    assert {"what", "by", "shape", "points", "held_out", "table_mape", "fit_bias"} <= set(table.columns)
    nothing = table[table["held_out"] == 0]
    assert nothing["table_mape"].isna().all()
    assert list(evidence.residual_table([]).columns) == list(table.columns)


def test_coverage_counts_measured_sizes_by_octave():
    heads = {**machine.HEADS, "kv_format": "bf16"}
    sizes = [(1, 512), (1, 700), (1, 2048), (5, 512)]
    kernels = [machine.row("decode_attention", {"sequences": s, "context_tokens": c, **heads}) for s, c in sizes]
    cells = evidence.coverage(tables_of(grouped(kernels), load_catalog()))
    found = {(row.sequences, row.context_tokens): row.points for row in cells.itertuples()}
    assert found == {(1, 512): 2, (1, 2048): 1, (4, 512): 1}
    assert evidence.coverage([]).empty


def test_steps_of_a_run_fall_into_the_same_cells():
    segments = pd.DataFrame({
        "decode_sequences": [4, 5, 0, 2], "context_tokens": [2400, 5 * 600, 0, 100], "steps": [10, 5, 1, 7],
        "prefill_tokens": [0, 0, 256, 64],
    })  # fmt: skip
    cells = evidence.visited(segments)
    assert cells.to_dict("records") == [{"sequences": 4, "context_tokens": 512, "steps": 15}]
    assert evidence.visited(segments.iloc[2:]).empty


def test_the_scatter_has_the_diagonal_and_both_bands(points):
    chart = charts.measured_and_predicted(points).to_dict()
    lines, marks = (chart["datasets"][layer["data"]["name"]] for layer in chart["layer"])
    ratios = {row["line"]: row["predicted_s"] / row["measured_s"] for row in lines}
    assert ratios == {"exact": 1.0, "20 % longer": pytest.approx(1.2), "20 % shorter": pytest.approx(0.8)}
    assert len(marks) == len(points)
    assert all(layer["encoding"][axis]["scale"]["type"] == "log" for layer in chart["layer"] for axis in "xy")
    assert chart["layer"][1]["encoding"]["shape"]["field"] == "what"
    two = pd.concat([points, points.assign(device="other")])
    assert charts.measured_and_predicted(two).to_dict()["layer"][1]["encoding"]["shape"]["field"] == "device"


def test_the_coverage_chart_sums_formats_and_rings_where_a_run_decodes():
    cells = evidence.coverage(shipped("h100-sxm", "vllm").tables)
    run = pd.DataFrame({"sequences": [3], "context_tokens": [1 << 20], "steps": [9]})
    plain, ringed = charts.coverage(cells).to_dict(), charts.coverage(cells, run).to_dict()
    (shown,) = plain["datasets"].values()
    assert sum(row["points"] for row in shown) == cells["points"].sum()
    assert len(shown) == len(cells[["sequences", "context_tokens"]].drop_duplicates())
    assert ringed["layer"][1]["encoding"]["x"]["sort"][-1] == 1 << 20
    assert charts.coverage(cells, run.iloc[:0]).to_dict().keys() == plain.keys()


def test_charts_are_drawn(points, tmp_path):
    drawn = tmp_path / "scatter.png"
    charts.measured_and_predicted(points).properties(width=300).save(drawn)
    assert drawn.read_bytes().startswith(b"\x89PNG")
