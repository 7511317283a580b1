"""The process that measures one backend: `python -m kernels_bench.worker BACKEND BUDGET_S`, JSON lines on stdout.

A process of its own, so that one library's threads do not spin against another's. The first line is the file's
header, or {"lacks": why}; then come measurements, and {"skipped": what, "why": why}.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from itertools import chain

from kernels_bench import __version__
from kernels_bench.backends import case_iterators, device_name, environment, lack
from kernels_bench.case import Case

MOST_CHARGED_S = 1.0  # of a case, to its module: what is compiled or filled once must not cost it its turns
_POOLS = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMBA_NUM", "VECLIB_MAXIMUM")
SETTINGS = {
    **{f"{pool}_THREADS": "1" for pool in _POOLS},
    # glibc would give large outputs back to the system after some calls and not after others
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}


def main() -> None:
    backend, deadline = sys.argv[1], time.monotonic() + float(sys.argv[2])
    if why := lack(backend):
        _say({"lacks": why})
        return
    _say(header(backend))
    if backend == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for line in measurements(backend, deadline):
        _say(line)


def header(backend: str) -> dict[str, object]:
    """The first line of a measurements file."""
    return {
        "schema": "capsim-measurements",
        "version": 1,
        "device": device_name(backend),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(backend),
        "source": f"kernels_bench {__version__}",
    }


def measurements(backend: str, deadline: float) -> Iterator[dict[str, object]]:
    """Measures until `deadline` (of time.monotonic): always the next case of the module that took least time so far."""
    from kernels_bench.clocks import clock
    from kernels_bench.measure import Canary, measure

    ticks = clock(backend)
    canary, missing, again = Canary(ticks), set(), list[Case]()
    queue = [(0.0, name, cases) for name, cases in case_iterators(backend).items()]
    heapify(queue)
    while queue and time.monotonic() < deadline:
        spent_s, name, cases = heappop(queue)
        start = time.monotonic()
        case: Case | None = next(cases, None)
        if case is None:
            continue
        try:
            if case.kernel not in missing:
                line = measure(case, ticks, canary)
                if line is None and case not in again:  # once more, when it is this module's turn again
                    again.append(case)
                    cases = chain([case], cases)
                else:
                    yield line or _skipped(case, "the machine was never quiet")
        except ModuleNotFoundError as error:
            missing.add(case.kernel)
            yield {"skipped": case.kernel, "why": f"{error.name} is not installed"}
        except Exception as error:  # a kernel that fails must not end the others
            yield _skipped(case, f"{type(error).__name__}: {error}")
        heappush(queue, (spent_s + min(time.monotonic() - start, MOST_CHARGED_S), name, cases))


def _skipped(case: Case, why: str) -> dict[str, object]:
    return {"skipped": f"{case.op} {case.kernel} {case.shape}", "why": why.splitlines()[0]}


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
