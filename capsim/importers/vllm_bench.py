"""``vllm bench serve --save-result --save-detailed`` as runs and their requests, on the client's clock."""

from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError
from capsim.importers.imported import Imported, reading
from capsim.importers.json_file import read_json

ENGINE = "vllm"
NEEDED = ("date", "model_id", "duration", "input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")


def import_vllm_bench(paths: list[Path], device: str, model: str | None = None) -> Imported:
    """One run a file.

    Parameters
    ----------
    device
        What it was measured on: the files do not say.
    model
        A key of the catalog, where the model's id is none.

    Raises
    ------
    ScenarioError
        Not such a file, or one without the times of its requests.
    """
    results = [_result(path) for path in paths]
    found = Imported.of(device, "vllm bench serve", max(_created(result) for result in results), engine=ENGINE)
    for run, (path, result) in enumerate(zip(paths, results, strict=True)):
        with reading(path):
            found.rows += [_run(run, result, model), *_requests(run, result, found)]
    return found


def _run(number: int, result: dict[str, Any], model: str | None) -> dict[str, Any]:
    rate = result.get("request_rate")
    endless = rate in (None, "inf")
    return {
        "kind": "run", "run": number, "engine": ENGINE, "model": model or result["model_id"],
        "load": "burst" if endless else "poisson", "rate_per_s": None if endless else float(str(rate)),
        "duration_s": float(result["duration"]), "concurrency": result.get("max_concurrency"),
        "steps": None, "preemptions": None,
    }  # fmt: skip


def _requests(run: int, result: dict[str, Any], found: Imported) -> list[dict[str, Any]]:
    """Those that ended well, from the first one's start on."""
    rows = []
    columns = [result[key] for key in ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")]
    begun = min(result["start_times"], default=0.0)
    for number, (prompt, output, ttft, gaps, start, error) in enumerate(zip(*columns, strict=True)):
        if error or not output or ttft <= 0:
            found.left_out["a request that failed"] += 1
            continue
        arrival = start - begun
        rows.append(
            {
                "kind": "request", "run": run, "request": number, "arrival_s": arrival, "prompt_tokens": int(prompt),
                "output_tokens": int(output), "first_token_s": arrival + ttft,
                "finished_s": arrival + ttft + sum(gaps),
            }
        )  # fmt: skip
    return rows


def _result(path: Path) -> dict[str, Any]:
    result = read_json(path)
    missing = [key for key in NEEDED if key not in result] if isinstance(result, dict) else list(NEEDED)
    if missing:
        hint = "run vllm bench serve with --save-result --save-detailed"
        raise ScenarioError.one(f"lacks {', '.join(missing)}", path=path, hint=hint)
    with reading(path):
        lengths = {len(result[key]) for key in ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")}
    if len(lengths) > 1:
        raise ScenarioError.one("its lists of requests differ in length", path=path)
    return dict(result)


def _created(result: dict[str, Any]) -> str:
    """``20261124-101500`` as ISO 8601; its zone is the client's, and unknown."""
    stamp = str(result["date"])
    day, _, time = stamp.partition("-")
    if len(day) != 8 or len(time) != 6:
        return stamp
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}"
