"""The process that measures one backend: `python -m kernels_bench.worker BACKEND BUDGET_S`, JSON lines on stdout.

A process of its own, so that one library's threads do not spin against another's. The first line is the file's
header, or {"lacks": why}; then come measurements, and {"skipped": what, "why": why}.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush

from kernels_bench import __version__
from kernels_bench.backends import cases_by_operation, device_name, environment, lack
from kernels_bench.case import Case

MOST_CHARGED_S = 1.0  # of a case, to its operation: what is compiled or filled once must not cost it its turns
# of the time, where one is the rule: the operations that have most shapes and formats, and that steps spend most in
SHARES = {"decode_attention": 5, "gemm": 2, "experts": 2, "prefill_attention": 2, "kv_write": 2}
_POOLS = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMBA_NUM", "VECLIB_MAXIMUM")
SETTINGS = {
    **{f"{pool}_THREADS": "1" for pool in _POOLS},
    # glibc would give large outputs back to the system, and each call pay for fresh pages: six times its time, for a
    # sum of 100 MiB. MMAP_THRESHOLD, which would do as well, stops at 32 MiB in older ones.
    "MALLOC_MMAP_MAX_": "0",
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
    """Measures until `deadline` (of time.monotonic): always the next case of the operation that took least of its share
    of the time so far."""
    from kernels_bench.clocks import clock
    from kernels_bench.measure import Canary, measure, steady

    ticks = clock(backend)
    canary, missing, again = Canary(ticks), set(), list[Case]()
    queue = [(0.0, op, deque(cases)) for op, cases in cases_by_operation(backend).items()]
    heapify(queue)
    while queue and time.monotonic() < deadline:
        spent, op, cases = heappop(queue)
        start = time.monotonic()
        if not cases:
            continue
        case = cases.popleft()
        try:
            if case.kernel not in missing:
                line = measure(case, ticks, canary, deadline)
                if line is None and time.monotonic() > deadline:
                    return
                if not (line and steady(line)) and case not in again:  # once more, when it is this operation's turn
                    again.append(case)
                    cases.appendleft(case)
                else:
                    yield line or _skipped(case, "the machine was never quiet")
        except ModuleNotFoundError as error:
            missing.add(case.kernel)
            yield {"skipped": case.kernel, "why": f"{error.name} is not installed"}
        except Exception as error:  # a kernel that fails must not end the others
            yield _skipped(case, f"{type(error).__name__}: {error}")
        spent += min(time.monotonic() - start, MOST_CHARGED_S) / SHARES.get(op, 1)
        heappush(queue, (spent, op, cases))


def _skipped(case: Case, why: str) -> dict[str, object]:
    return {"skipped": f"{case.op} {case.kernel} {case.shape}", "why": why.splitlines()[0]}


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
