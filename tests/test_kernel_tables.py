"""Kernel tables: exact at their points, right in between, and continuous beyond; held-out errors of a known machine."""

import measured_kernels as machine
import numpy as np
import pytest

from capsim.calibrate.residuals import kernel_residual
from capsim.calibrate.sum_roofline import fit_sum_roofline
from capsim.calibrate.tables import fastest, grouped, table_of
from capsim.catalog import load_catalog
from capsim.kernel_tables import Curve, KernelTable, Polyline, SumRoofline, Surface, Work

CATALOG = load_catalog()
NOISY = machine.rows(noise=0.02)


def tables(rows):
    return [table_of(group, CATALOG) for group in grouped(rows)]


def surface(rows, op, **shape):
    (table,) = (t for t in tables(rows) if t.op == op and shape.items() <= t.shape.items())
    return Surface(table)


def test_a_sum_roofline_is_recovered():
    works = [Work(b, f) for b in (1e5, 1e6, 1e7) for f in (1e6, 1e8, 1e9)]
    true = SumRoofline(call_s=1e-5, byte_s=1e-10, flop_s=1e-12)
    fitted = fit_sum_roofline(works, [true.seconds(done) for done in works])
    assert fitted.model_dump() == pytest.approx(true.model_dump(), rel=1e-6)


def test_a_table_gives_back_its_points_and_what_lies_between():
    decode = surface(machine.rows(), "decode_attention", kv_format="turboquant_4bit_nc")
    shape = {**machine.HEADS, "kv_format": "turboquant_4bit_nc"}
    for sequences, context, off in (
        (4, 4096, 1e-9),
        (4, 6000, 1e-9),
        (16, 700, 1e-9),
        (1, 50_000, 1e-9),
        (8, 4096, 0.1),
    ):
        true_s = machine.seconds("decode_attention", {"sequences": sequences, "context_tokens": context, **shape})
        assert decode.seconds(context, sequences) == pytest.approx(true_s, rel=off)


@pytest.mark.parametrize("at", [1, 4, 7, 16, 40])
def test_a_line_over_context_is_straight_between_knots_and_joins_at_them(at):
    line = surface(NOISY, "decode_attention", kv_format="bf16").line(at)
    for knot in line.sizes[1:-1]:
        before, slope, until = line.at(knot * (1 - 1e-6))
        after = line.at(knot)[0]
        assert until == knot
        assert before + slope * knot * 1e-6 == pytest.approx(after, rel=1e-9)
        assert after > before


@pytest.mark.parametrize(("op", "edges", "at"), [("gemm", (1, 2048), 1), ("decode_attention", (512, 65536), 4)])
def test_nothing_jumps_at_the_edge_of_the_domain_and_growth_goes_on(op, edges, at):
    shape = {"out_features": 2048} if op == "gemm" else {"kv_format": "bf16"}
    table = surface(NOISY, op, **shape)
    low, high = edges
    assert table.seconds(high * 1.0001, at) == pytest.approx(table.seconds(high, at), rel=1e-3)
    assert table.seconds(high * 8, at) == pytest.approx(8 * table.seconds(high, at), rel=0.15)
    assert 0 < table.seconds(low / 2, at) <= table.seconds(low, at)


def test_more_work_never_takes_less():
    noisy = machine.rows(noise=0.3, seed=3)
    for table in tables(noisy):
        for curve in table.curves:
            assert list(curve.seconds) == sorted(curve.seconds)


def test_experts_are_placed_by_how_many_are_touched():
    """Tokens that all choose the same experts are quick; the table holds what even routing would have taken."""
    rows = [r for r in machine.rows() if r.op == "experts"]
    skewed = [machine.row("experts", {**r.shape, "active_experts": 8, "skew": 2.0}) for r in rows]
    table = surface(rows[::2] + skewed[1::2], "experts")
    for row in rows:
        assert table.seconds(row.size("tokens")) == pytest.approx(row.median_s, rel=1e-6)


def test_the_fastest_implementation_is_kept():
    gemms = [r for r in machine.rows() if r.op == "gemm"]
    slow = [machine.row("gemm", r.shape, kernel="slow", slower=1.5) for r in gemms]
    kept = fastest(tables(slow + gemms))
    assert [table.kernel for table in kept] == ["synthetic", "synthetic"]


def test_held_out_errors_of_tables_and_fits_are_near_the_noise():
    for group in grouped(NOISY):
        found = kernel_residual([group], CATALOG)
        assert found.held_out >= 1
        assert found.held_out <= len(group) / 2
        assert found.table.mape < 0.08, found
        assert found.fit.mape < 0.06, found
        assert found.table.largest >= found.table.mape >= abs(found.table.bias)


def test_what_a_sum_roofline_cannot_follow_a_table_does():
    roots = [machine.row("gemm", {"tokens": n, **machine.GEMM}) for n in machine.TOKENS]
    roots = [row.model_copy(update={"median_s": 1e-4 * row.size("tokens") ** 0.5}) for row in roots]
    found = kernel_residual([roots], CATALOG)
    assert found.table.mape < 0.04
    assert found.fit.mape > 0.1


def test_two_points_are_not_judged():
    few = [machine.row("norm", {"tokens": n, "hidden": 64}) for n in (1, 8)]
    found = kernel_residual([few], CATALOG)
    assert (found.points, found.held_out, found.table, found.fit) == (2, 0, None, None)


def test_unknown_formats_take_their_bytes_from_the_rows():
    shape = {**machine.HEADS, "kv_format": "turboquant_2.5"}
    rows = [
        machine.row("decode_attention", {"sequences": 1, "context_tokens": c, **shape, "kv_format": "bf16"})
        for c in machine.CONTEXTS
    ]  # fmt: skip
    rows = [
        r.model_copy(update={"shape": {**r.shape, **shape}, "bytes": r.size("context_tokens") * 8 * 82.0}) for r in rows
    ]
    assert tables(rows)[0].shape["pair_bytes"] == 82.0


@pytest.mark.parametrize("curve", [{"sizes": [1, 2], "seconds": [1.0]}, {"sizes": [2, 1], "seconds": [1.0, 2.0]}])
def test_curves_that_are_not_are_refused(curve):
    with pytest.raises(ValueError, match="rising sizes"):
        Curve(**curve)


def test_tables_name_their_operation_and_order_their_curves():
    fit, one = SumRoofline(call_s=0, byte_s=1, flop_s=0), Curve(at=2, sizes=(1,), seconds=(1.0,))
    with pytest.raises(ValueError, match="unknown op"):
        KernelTable(op="gem", kernel="k", shape={}, curves=(one,), fit=fit)
    with pytest.raises(ValueError, match="rise in it"):
        KernelTable(
            op="mla_decode", kernel="k", shape={}, curves=(one, Curve(at=1, sizes=(1,), seconds=(1.0,))), fit=fit
        )


def test_a_polyline_goes_on_beyond_its_last_knot():
    line = Polyline([0, 10, 20], [1.0, 2.0, 4.0])
    assert line.at(15) == (3.0, 0.2, np.inf)
    assert line.at(10)[1:] == (0.2, np.inf)
    assert line.at(5) == (1.5, 0.1, 10)
    assert line.at(40)[0] == pytest.approx(8.0)
