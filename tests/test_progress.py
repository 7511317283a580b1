"""The file that says how far a run is."""

import pytest

from capsim.progress import ProgressFile, read_progress


def test_a_reader_sees_how_far_and_how_long(tmp_path, monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("capsim.progress.time.time", lambda: next(clock))
    ProgressFile(tmp_path / "run").tell(2, 10, live={"ttft_s_p95": 0.4})
    seen = read_progress(tmp_path / "run")
    assert (seen["state"], seen["done"], seen["total"], seen["live"]) == ("running", 2, 10, {"ttft_s_p95": 0.4})
    assert seen["eta_s"] == pytest.approx(40.0)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["progress.json"]


def test_what_it_took_to_get_ready_does_not_count(tmp_path, monkeypatch):
    clock = iter([100.0, 130.0, 132.0])
    monkeypatch.setattr("capsim.progress.time.time", lambda: next(clock))
    file = ProgressFile(tmp_path)
    file.began(seconds_ago=2.0)
    assert file.tell(2, 10) == pytest.approx(8 * 4 / 2)
    assert read_progress(tmp_path)["started_s"] == 100.0


def test_nothing_done_promises_nothing(tmp_path):
    ProgressFile(tmp_path).tell(0, 10)
    assert read_progress(tmp_path)["eta_s"] is None


def test_without_a_directory_nothing_is_written(tmp_path):
    ProgressFile(None).tell(1, 2)
    assert read_progress(tmp_path) is None
