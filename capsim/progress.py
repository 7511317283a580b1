"""How far a long run is: a file in its directory that another process watches."""

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from capsim.errors import refusals

FILE = "progress.json"
State = Literal["running", "done", "failed", "interrupted"]


class ProgressFile:
    """Writes ``progress.json``: ``{state, done, total, started_s, updated_s, eta_s, pid, live, message}``.

    ``done`` of ``total`` parts are finished (``total`` None where their number is not known), times are seconds since
    the epoch, ``eta_s`` the seconds left at the pace so far, and ``live`` what is known by now. Without a directory
    nothing is written.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._started_s = self._began_s = time.time()

    def began(self, seconds_ago: float) -> None:
        """Tell the pace from then on: what it took to get ready, as for processes to start, says nothing of it."""
        self._began_s = time.time() - seconds_ago

    def tell(
        self,
        done: float,
        total: float | None,
        *,
        state: State = "running",
        live: dict[str, Any] | None = None,
        message: str = "",
    ) -> float | None:
        """Replace the file in one step, so that a reader sees a whole one; the seconds left, None if not known.

        Raises
        ------
        ScenarioError
            The system refuses to write it.
        """
        now_s = time.time()
        left_s = max(0.0, total - done) * (now_s - self._began_s) / done if done and total is not None else None
        if self._directory is None:
            return left_s
        document = {
            "state": state, "done": done, "total": total, "started_s": self._started_s, "updated_s": now_s,
            "eta_s": left_s,
            "pid": os.getpid(), "live": live or {}, "message": message,
        }  # fmt: skip
        place = self._directory / FILE
        with refusals("written", place):
            self._directory.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f".{FILE}.{os.getpid()}")
            fresh.write_text(json.dumps(document) + "\n")
            fresh.replace(place)
        return left_s

    def withdraw(self) -> None:
        """Leave nothing behind of work that came to nothing."""
        if self._directory is not None:
            (self._directory / FILE).unlink(missing_ok=True)
            if not any(self._directory.iterdir()):
                self._directory.rmdir()


def live(summary: dict[str, Any]) -> dict[str, float | None]:
    """Of a summary what a watcher looks at: goodput, and the 95th percentiles that an SLO bounds."""
    return {"goodput": summary["goodput"]} | {f"{name}_p95": summary[name]["p95"] for name in ("ttft_s", "tpot_s")}


def read_progress(directory: Path) -> dict[str, Any] | None:
    """What the file says; None where there is none."""
    try:
        document: dict[str, Any] = json.loads((directory / FILE).read_text())
    except FileNotFoundError:
        return None
    return document
