"""How far predictions lie from published points: by source, device, engine and metric, ``fit`` and ``judge`` apart."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capsim.errors import ScenarioError
from capsim.validate.points import USES, Point, read_points
from capsim.validate.predict import Judged, Predicted, predict

SCHEMA_VERSION = 1
WORST = 10
MUCH = 0.15
"""A median error above which it is told what the simulated steps were made of."""
APART = 0.1
"""Two devices whose published throughputs differ by less than this share are not put in an order."""
SAME = ("source", "model", "engine", "isl", "osl", "load", "concurrency_or_rate")
"""Conditions that points have in common of which only the device, and what fits on it, differs."""


class _Found(NamedTuple):
    predicted: Predicted
    figure: Judged


def validate_points(path: Path, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Simulate every point of a file, on all cores, and set the figures beside the published ones: the JSON document.

    ``on_progress`` is told how many points are done, of how many.

    Raises
    ------
    ScenarioError
        A file that is no such table, or no point in it that is modelled.
    """
    points = read_points(path)
    done = []
    for count, each in enumerate(_predicted(points), 1):
        done.append(each)
        if on_progress:
            on_progress(count, len(points))
    return summarise(path, done)


def _predicted(points: Sequence[Point]) -> Iterator[Predicted]:
    with ProcessPoolExecutor() as pool:
        yield from pool.map(predict, points)


def summarise(path: Path, done: Sequence[Predicted]) -> dict[str, Any]:
    """Errors, worst figures, what was assumed and what was left out.

    Raises
    ------
    ScenarioError
        Nothing that could be judged.
    """
    found = [_Found(each, figure) for each in done for figure in each.figures]
    skipped = Counter(each.skipped for each in done if each.skipped)
    left_out = Counter(text for each in done for text in each.left_out)
    if not found:
        reasons = "; ".join(reason for reason, _ in (skipped or left_out).most_common(3))
        raise ScenarioError.one("no point of this file can be judged", path=path, hint=reasons)
    return {
        "schema_version": SCHEMA_VERSION, "file": str(path), "points": len(done),
        "judged": sum(bool(each.figures) for each in done),
        "errors": {use: _errors([each for each in found if each.figure.use == use]) for use in USES},
        "device_order": _device_order(found),
        "figures": [_beside(each) for each in found],
        "made_of": _made_of(found),
        "worst": [_explained(each) for each in _worst(found)],
        "assumed": _counts("condition", Counter(text for each in done for text in each.assumed)),
        "skipped": _counts("reason", skipped),
        "left_out": _counts("figure", left_out),
    }  # fmt: skip


def _beside(each: _Found) -> dict[str, Any]:
    where, figure = each.predicted, each.figure
    return {
        "point": where.point.id, "use": figure.use, "source": where.point.source, "device": where.device,
        "engine": where.engine, "model": where.point.model, "metric": figure.kind, "published": figure.published,
        "simulated": figure.simulated,
    }  # fmt: skip


def _counts(name: str, counted: Counter[str]) -> list[dict[str, Any]]:
    return [{name: text, "count": count} for text, count in counted.most_common()]


def _grouped(found: Sequence[_Found]) -> list[tuple[tuple[str, ...], list[_Found]]]:
    """Figures by source, device, engine and metric."""
    groups: dict[tuple[str, ...], list[_Found]] = defaultdict(list)
    for each in found:
        where = each.predicted
        groups[where.point.source, where.device, where.engine, each.figure.kind].append(each)
    return sorted(groups.items())


def _made_of(found: Sequence[_Found]) -> list[dict[str, Any]]:
    """What the simulated steps are made of where TPOT or throughput that judges is far off: memory, scheduling, kernels
    and overhead, by model; means over the points."""
    groups: dict[tuple[str, ...], list[_Found]] = defaultdict(list)
    for key, members in _grouped([each for each in found if each.figure.use == "judge"]):
        if key[-1] in ("TPOT", "throughput"):
            for each in members:
                groups[(*key, each.predicted.point.model)].append(each)
    rows = []
    for (source, device, engine, metric, model), members in groups.items():
        errors = [each.figure.error for each in members]
        if np.median(np.abs(errors)) > MUCH:
            runs = [each.predicted for each in members if each.predicted.shares]
            rows.append({
                "source": source, "device": device, "engine": engine, "metric": metric, "model": model,
                "figures": len(errors), "median_abs_error": float(np.median(np.abs(errors))),
                "bias": float(np.median(errors)), "step_s": _mean([run.seconds_a_step for run in runs]),
                "step_time_share": {
                    name: _mean([run.shares[name] for run in runs if run.shares]) for name in runs[0].shares or ()
                },
                "batch": _mean([run.batch for run in runs]), "kv_pool_used": _mean([run.pool_used for run in runs]),
                "preemptions": _mean([run.preemptions for run in runs]),
            })  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _errors(found: Sequence[_Found]) -> list[dict[str, Any]]:
    """One row a source, device, engine and metric."""
    rows = []
    for (source, device, engine, metric), members in _grouped(found):
        errors = np.array([each.figure.error for each in members])
        worst = int(np.abs(errors).argmax())
        rows.append({
            "source": source, "device": device, "engine": engine, "metric": metric, "figures": len(errors),
            "median_abs_error": float(np.median(np.abs(errors))), "bias": float(np.median(errors)),
            "worst_error": float(errors[worst]), "worst_point": members[worst].predicted.point.id,
        })  # fmt: skip
    return rows


def _worst(found: Sequence[_Found]) -> list[_Found]:
    """The figures furthest off among those that judge, one a source, device, engine and metric."""
    worst: dict[tuple[str, ...], _Found] = {}
    for each in found:
        where, figure = each.predicted, each.figure
        key = (where.point.source, where.device, where.engine, figure.kind)
        if figure.use == "judge" and (key not in worst or _off(each) > _off(worst[key])):
            worst[key] = each
    return sorted(worst.values(), key=_off, reverse=True)[:WORST]


def _off(each: _Found) -> float:
    """Distance as a ratio, so that half and double are as far off."""
    return abs(float(np.log(max(each.figure.simulated, 1e-12) / each.figure.published)))


def _explained(each: _Found) -> dict[str, Any]:
    """A figure with what the simulated run was made of: step time by component, batch, KV pool, preemptions."""
    where, figure = each.predicted, each.figure
    point = where.point
    return {
        "point": point.id, "source": point.source, "device": where.device, "engine": where.engine,
        "model": point.model, "parallelism": point.parallelism, "isl": point.isl, "osl": point.osl,
        "load": f"{point.load} {point.concurrency_or_rate}".strip(), "metric": figure.metric,
        "published": figure.published, "simulated": figure.simulated, "error": figure.error,
        "step_time": where.step_time, "step_time_share": where.shares, "step_s": where.seconds_a_step,
        "batch": where.batch, "kv_pool_used": where.pool_used, "preemptions": where.preemptions,
    }  # fmt: skip


def _device_order(found: Sequence[_Found]) -> dict[str, int]:
    """Of pairs of points that differ in the device, how many have the faster one right, by throughput a device."""
    alike: dict[tuple[str, ...], list[tuple[str, float, float]]] = defaultdict(list)
    for each in found:
        where, figure = each.predicted, each.figure
        if figure.use == "judge" and figure.kind == "throughput":
            key = (*(getattr(where.point, name) for name in SAME), figure.metric)
            count = where.devices if figure.metric == "output_tok_s" else 1
            alike[key].append((where.device, figure.published / count, figure.simulated / count))
    pairs = right = 0
    for members in alike.values():
        for (device, published, simulated), (other, other_published, other_simulated) in combinations(members, 2):
            if device != other and abs(published / other_published - 1) > APART:
                pairs += 1
                right += (published > other_published) == (simulated > other_simulated)
    return {"pairs": pairs, "right": right}
