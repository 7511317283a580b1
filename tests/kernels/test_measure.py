"""The method: disturbed windows are repeated, and a backend's modules share the time."""

import time
from itertools import count

import pytest

from kernels_bench import worker
from kernels_bench.case import Case
from kernels_bench.clocks import Clock
from kernels_bench.measure import FEWEST_CALLS, MOST_REPEATS, Canary, measure, steady

CALL_S, CANARY_S = 0.03, 0.002


class Machine:
    """A clock that reads fixed seconds, and whose canary is slower at the disturbed ticks."""

    def __init__(self, disturbed):
        self.disturbed, self.tick, self.calls = disturbed, count(), 0
        self.clock = Clock(self.time_s, lambda: None)

    def time_s(self, run):
        if run is self.clock.canary:
            return CANARY_S * (1.2 if self.disturbed(next(self.tick)) else 1)
        run()
        self.calls += 1
        return CALL_S


def case(op="gemm", kernel="plain", run=lambda: None):
    return Case(op, "cpu", kernel, {"tokens": 1}, 100, 200, lambda: run)


def measured(disturbed, seconds=60.0):
    machine = Machine(disturbed)
    return measure(case(), machine.clock, Canary(machine.clock), time.monotonic() + seconds), machine.calls


def test_a_quiet_machine():
    row, calls = measured(lambda tick: False)
    assert row["median_s"] == CALL_S
    assert row["iqr_s"] == 0
    assert row["runs"] == FEWEST_CALLS
    assert row["repeated_windows"] == 0
    assert calls == FEWEST_CALLS + 2, "two calls to warm up"
    assert (row["kind"], row["op"], row["bytes"], row["flops"]) == ("kernel", "gemm", 100, 200)


def test_windows_next_to_a_moved_canary_are_repeated():
    row, calls = measured(lambda tick: tick == 53)
    assert row["repeated_windows"] == 2, "the window before it and the one after"
    assert row["runs"] == FEWEST_CALLS
    assert calls == FEWEST_CALLS + 2 + 2


def test_a_case_that_never_sees_a_quiet_window_is_given_up():
    row, calls = measured(lambda tick: tick > 50)
    assert row is None
    assert calls == 2 + MOST_REPEATS + 1


def test_a_case_is_cut_short_at_the_deadline():
    row, calls = measured(lambda tick: False, seconds=-1.0)
    assert row is None
    assert calls == 2, "two calls to warm up"


def test_calls_that_scatter_are_not_steady():
    assert steady({"median_s": 1.0, "iqr_s": 0.1})
    assert not steady({"median_s": 1.0, "iqr_s": 0.11})


@pytest.fixture
def bench(monkeypatch):
    """Runs the worker over fake cases, with a clock that reads nothing."""

    def run(cases, seconds=60.0):
        monkeypatch.setattr(worker, "cases_by_operation", lambda backend: cases)
        monkeypatch.setattr("kernels_bench.clocks.clock", lambda backend: Machine(lambda tick: False).clock)
        return list(worker.measurements("cpu", time.monotonic() + seconds))

    return run


def test_the_operation_that_took_least_time_is_next(bench):
    slow = [case("layer", run=lambda: time.sleep(0.01)) for _ in range(3)]
    quick = [case("norm") for _ in range(3)]
    rows = bench({"layer": slow, "norm": quick})
    assert [row["op"] for row in rows] == ["layer", "norm", "norm", "norm", "layer", "layer"]


def test_operations_with_a_larger_share_get_that_much_more_of_the_time(bench):
    def cases(op):
        return [case(op, run=lambda: time.sleep(0.005)) for _ in range(20)]

    rows = bench({op: cases(op) for op in ("decode_attention", "norm")})
    first = [row["op"] for row in rows[:18]]
    assert first.count("norm") == pytest.approx(18 / (1 + worker.SHARES["decode_attention"]), abs=1)


def test_it_ends_with_the_budget(bench):
    started = time.monotonic()
    rows = bench({"norm": [case("norm", run=lambda: time.sleep(0.01)) for _ in range(1000)]}, seconds=0.3)
    assert 1 <= len(rows) < 1000
    assert time.monotonic() - started < 5


def test_a_case_whose_calls_scatter_is_measured_once_more(bench, monkeypatch):
    lines = iter([{"median_s": 1.0, "iqr_s": 0.5}, {"median_s": 2.0, "iqr_s": 0.5}])
    monkeypatch.setattr("kernels_bench.measure.measure", lambda *_: next(lines))
    assert bench({"norm": [case("norm")]}) == [{"median_s": 2.0, "iqr_s": 0.5}]


def test_what_lacks_a_library_is_skipped_once_and_the_others_go_on(bench):
    def lacking():
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    missing = Case("gemm", "cpu", "numba", {}, 0, 0, lacking)
    lines = bench({"gemm": [missing, missing, case()]})
    assert lines[0] == {"skipped": "numba", "why": "numba is not installed"}
    assert [line.get("kernel") for line in lines[1:]] == ["plain"]


def test_a_kernel_that_fails_is_named_and_the_others_go_on(bench):
    def failing():
        raise RuntimeError("out of memory\nand more")

    lines = bench({"gemm": [Case("gemm", "cpu", "big", {"tokens": 9}, 0, 0, failing), case()]})
    assert lines[0] == {"skipped": "gemm big {'tokens': 9}", "why": "RuntimeError: out of memory"}
    assert lines[1]["kernel"] == "plain"
