"""Long work beside the app: verbs of the command line as processes of their own, at most a few at once.

A job's name is the hash of what it is asked, so that the same question asked twice, in a second tab or by another
visitor, is one job. In the directory of runs ``NAME/`` is what the verb writes with ``--out``; ``.jobs/NAME/`` keeps
the files it was given, ``job.json``, what went to standard error, and a lock that is held for as long as the job lives.
"""

import fcntl
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from capsim import __version__
from capsim.errors import ScenarioError
from capsim.progress import read_progress

AT_ONCE = 2
POLL_S = 0.3
MOST_CPU_S, MOST_BYTES = 3600, 16 * 2**30
"""What a job may take: whoever asks for more is told so, and the machine stays alive."""
STACK = "stack.json"
Verb = Literal["plan", "run", "sweep", "stack"]
State = Literal["queued", "running", "done", "failed", "interrupted"]
_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Job:
    """What was asked: texts of ``files`` by name, of which the verb is given the first, with its own ``options``;
    ``title`` is for people."""

    verb: Verb
    files: dict[str, str]
    title: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        asked = [__version__, self.verb, *self.options, *self.files.values()]
        return hashlib.sha256("\0".join(asked).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Status:
    """How a job is: ``progress`` is what ``progress.json`` says, ``message`` why it failed."""

    state: State
    progress: dict[str, Any]
    message: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ("queued", "running")


def runs_directory() -> Path:
    """``$CAPSIM_RUNS``, else a place in the user's state directory."""
    given = os.environ.get("CAPSIM_RUNS")
    return Path(given) if given else Path.home() / ".local/state/capsim/runs"


def result_directory(name: str) -> Path:
    """Where a job's verb writes.

    Raises
    ------
    ScenarioError
        Not a name of a job, such as a path that leads elsewhere.
    """
    if not _NAME.fullmatch(name):
        raise ScenarioError.one("not the id of a run: twelve characters of 0-9 and a-f", key=name[:40])
    return runs_directory() / name


def input_file(name: str, file: str) -> Path:
    """A file that a job was given."""
    return _place(name) / file


def start(job: Job) -> str:
    """Put a job in the queue, unless it is there already or running, and give its name."""
    place = _place(job.name)
    place.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        lock = _held(place / "lock")
        if lock is None:
            return job.name
        keep(job)
        with (place / "stderr.txt").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "capsim.jobs", job.name], pass_fds=[lock], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                env=os.environ | {"CAPSIM_RUNS": str(runs_directory().absolute())},
            )  # fmt: skip
        os.close(lock)  # the process holds it from here on
        _write(place / "pid", str(process.pid))
    return job.name


def keep(job: Job) -> None:
    """Write down what was asked, so that it is found again."""
    place = _place(job.name)
    place.mkdir(parents=True, exist_ok=True)
    for name, text in job.files.items():
        (place / name).write_text(text)
    (place / "stderr.txt").touch()
    _write(place / "job.json", json.dumps(asdict(job)))


def status(name: str) -> Status | None:
    """How a job is, whoever asked for it; None where nobody did."""
    directory, place = result_directory(name), _place(name)
    if not (place / "job.json").is_file():
        return None
    progress = read_progress(directory) or {}
    if _is_held(place / "lock"):
        return Status("running" if progress.get("state") == "running" else "queued", progress)
    if _has_result(directory):
        return Status("interrupted" if progress.get("state") == "interrupted" else "done", progress)
    told = (place / "stderr.txt").read_text(errors="replace").replace(f"{place}/", "")
    lines = told.strip().splitlines()
    stopped = lines[-1:] in ([], ["interrupted"])
    return Status("interrupted" if stopped else "failed", progress, "" if stopped else "\n".join(lines[-20:]))


def _has_result(directory: Path) -> bool:
    from capsim.store import OURS  # slow to import, and a job that waits for its turn needs none of it
    from capsim.sweep import TABLE

    return any((directory / file).is_file() for file in (*OURS, TABLE, STACK))


def cancel(name: str) -> None:
    """Ask a job to stop; its verb keeps what it has by then."""
    place = _place(name)
    if _is_held(place / "lock"):
        os.kill(int((place / "pid").read_text()), signal.SIGTERM)


def asked(name: str) -> Job | None:
    """What a job was asked; None where there is no such job, or one of another version of capsim."""
    try:
        told = json.loads((_place(name) / "job.json").read_text())
        return Job(told["verb"], told["files"], told["title"], tuple(told["options"]))
    except (FileNotFoundError, KeyError):
        return None


def names(verb: Verb | None = None) -> list[str]:
    """Of all jobs of a verb, the latest first."""
    files = sorted(runs_directory().glob(".jobs/*/job.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.parent.name for file in files if verb is None or json.loads(file.read_text())["verb"] == verb]


def ahead() -> int:
    """Jobs that run or wait."""
    return sum(_is_held(file) for file in runs_directory().glob(".jobs/*/lock"))


def main(name: str) -> None:
    """Wait for a place, first come first served, and become the verb, which holds the place until it ends."""
    place, job = _place(name), asked(name)
    assert job is not None
    slots = runs_directory() / ".jobs"
    with (slots / "queue").open("w") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        while not any(_held(slots / f"slot-{index}", inherited=True) is not None for index in range(AT_ONCE)):
            time.sleep(POLL_S)
    arguments = [
        job.verb, *job.options, str(place / next(iter(job.files))), "--out", str(result_directory(name)),
        "--format", "json", "--no-progress", "--quiet",
    ]  # fmt: skip
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    os.execv(sys.executable, [sys.executable, "-m", "capsim", *arguments])


def _place(name: str) -> Path:
    return result_directory(name).parent / ".jobs" / name


def _held(file: Path, *, inherited: bool = False) -> int | None:
    """The descriptor of a lock, now held; None where another process holds it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.set_inheritable(descriptor, inherited)
    return descriptor


def _is_held(file: Path) -> bool:
    if not file.exists():
        return False
    with _one_at_a_time():
        descriptor = _held(file)
        if descriptor is not None:
            os.close(descriptor)
    return descriptor is None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Trying a lock takes it for a moment, in which nobody must take a job for one that runs."""
    with (runs_directory() / ".jobs/looking").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        yield


def _write(file: Path, text: str) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(file)


if __name__ == "__main__":
    main(sys.argv[1])
