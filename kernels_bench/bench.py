"""One measured run: starts the backend's process, writes what it says to the file line by line, shows the card."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from kernels_bench.card import Card
from kernels_bench.worker import SETTINGS

LIVE_LINES = 18
LOG_EVERY_S = 10.0  # off a terminal


class MissingError(Exception):
    """A backend that cannot run here; the message says what it lacks."""


def bench(backend: str, budget_s: float, out: Path | None, console: Console) -> dict[str, Any]:
    """Measures a backend for `budget_s`; returns the summary {file, device, rows, seconds, interrupted}.

    The file has the header from the start and every measurement as soon as it is made. Raises MissingError.
    """
    start = time.monotonic()
    worker = _start(backend, budget_s)
    try:
        lines = (json.loads(line) for line in worker.stdout or ())
        header: dict[str, Any] = next(lines, {"lacks": "its process died, see above"})
        if "lacks" in header:
            raise MissingError(header["lacks"])
        path = out or Path(f"kernels-{header['device']}.jsonl")
        card, rows, interrupted = Card(header, budget_s), 0, False
        with path.open("w", encoding="utf-8") as file:
            _write(file, header)
            try:
                for line in _shown(lines, card, start, console):
                    _write(file, line)
                    rows += 1
            except KeyboardInterrupt:
                interrupted = True
        console.print(card.whole())
        if not interrupted and worker.wait():
            raise MissingError(f"its process died, see above; what it had measured is in {path}")
        seconds = round(time.monotonic() - start, 1)
        summary = {"file": str(path), "device": header["device"], "rows": rows, "seconds": seconds}
        return summary | {"interrupted": interrupted}
    finally:
        worker.kill()
        worker.wait()


def _shown(lines: Iterator[dict[str, Any]], card: Card, start: float, console: Console) -> Iterator[dict[str, Any]]:
    """The measurements among a worker's lines, each shown; the others say what was skipped."""
    said_s = 0.0
    with Live(console=console, transient=True, auto_refresh=False) as live:
        for line in lines:
            if "skipped" in line:
                card.skip(line["skipped"], line["why"])
            else:
                card.add(line)
                yield line
            elapsed_s = time.monotonic() - start
            if console.is_terminal:
                live.update(card.live(elapsed_s, LIVE_LINES), refresh=True)
            elif elapsed_s - said_s >= LOG_EVERY_S:
                said_s = elapsed_s
                console.print(card.line(elapsed_s), highlight=False, soft_wrap=True)


def _start(backend: str, budget_s: float) -> subprocess.Popen[str]:
    """The worker, in a session of its own: Ctrl-C is for this process, which then ends the worker."""
    command = [sys.executable, "-m", "kernels_bench.worker", backend, str(budget_s)]
    environment = os.environ | SETTINGS
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def _write(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()
