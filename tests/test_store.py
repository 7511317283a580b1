"""The run directory: an earlier result is there until the new one is, whatever ends the process in between."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from capsim import store
from capsim.errors import ScenarioError


def write(directory, text):
    store._write_whole(directory, lambda place: (place / "summary.json").write_text(text))


def killed_at(directory, rename):
    """Write a new result in a process that is killed just before that rename."""

    def die(path, target, *, made=[]):  # noqa: B006  counts the calls of one process
        made.append(path)
        if len(made) == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename(path, target)

    def work():
        Path.rename = die
        write(directory, "new")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("rename", [1, 2])
def test_a_process_that_is_killed_while_it_replaces_a_result_leaves_the_old_one(tmp_path, rename):
    write(tmp_path / "run", "old")
    assert killed_at(tmp_path / "run", rename) == -signal.SIGKILL
    store.check_target(tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").read_text() == "old"
    write(tmp_path / "run", "new")
    assert (tmp_path / "run" / "summary.json").read_text() == "new"
    assert not store._aside(tmp_path / "run").exists()


def test_a_result_that_stands_aside_is_found_when_it_is_read(tmp_path):
    write(tmp_path / "run", "old")
    assert killed_at(tmp_path / "run", 2) == -signal.SIGKILL
    assert not (tmp_path / "run").exists()
    with pytest.raises(ScenarioError, match="cannot be read: Expecting value"):
        store.load(tmp_path / "run")
    assert not (tmp_path / "run").exists(), "somebody may be about to put a new one there"


def test_a_reader_between_the_two_renames_does_not_stand_in_the_way(tmp_path, monkeypatch):
    write(tmp_path / "run", "old")
    rename = Path.rename

    def read_before(path, target):
        if not (tmp_path / "run").exists():
            with pytest.raises(ScenarioError, match="cannot be read"):
                store.load(tmp_path / "run")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", read_before)
    write(tmp_path / "run", "new")
    assert (tmp_path / "run" / "summary.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["run"]


def test_a_place_that_cannot_be_replaced_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be replaced: give a directory inside it"):
        store.check_target(Path())


def test_what_stands_aside_of_a_result_that_was_replaced_is_cleared_away(tmp_path):
    write(tmp_path / "run", "new")
    store._aside(tmp_path / "run").mkdir()
    store.check_target(tmp_path / "run")
    assert not store._aside(tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "--out .*run: cannot be written: No space left on device .make room on the disk"),
        (errno.EACCES, "--out .*run: cannot be written: Permission denied .ask for the right to"),
        (errno.EIO, "--out .*run: cannot be written: Input/output error$"),
    ],
)
def test_what_the_system_refuses_is_said_and_the_earlier_result_stays(tmp_path, number, message):
    write(tmp_path / "run", "old")

    def refused(place):
        raise OSError(number, os.strerror(number))

    with pytest.raises(ScenarioError, match=message):
        store._write_whole(tmp_path / "run", refused)
    assert (tmp_path / "run" / "summary.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["run"]
