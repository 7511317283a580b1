"""What is true of every finished run, or the simulator is wrong."""

from itertools import pairwise

import numpy as np
import pandas as pd

from capsim.metrics.requests import OUTCOMES
from capsim.metrics.steps import Steps
from capsim.sim.columns import Requests

MOMENTS = ["arrival_s", "enqueued_s", "first_scheduled_s", "first_token_s", "finished_s"]


def check(requests: Requests, stalls_s: pd.Series, steps: Steps, kv_blocks: list[tuple[int, int, int]]) -> None:
    """Hold the tables of one replication against each other.

    Raises
    ------
    AssertionError
        An identity is broken: a bug in capsim.
    """
    outcomes = requests["outcome"].value_counts()
    known = sum(int(outcomes.get(name, 0)) for name in OUTCOMES)
    _hold(known == len(requests), "offered = completed + rejected + abandoned + unfinished")
    _hold(all(taken == freed + held for taken, freed, held in kv_blocks), "KV blocks allocated = freed + resident")
    _hold(steps.ordered, "steps of a replica do not overlap")
    completed = (requests["outcome"] == "completed").to_numpy()
    in_order = all(bool((requests[a] <= requests[b])[completed].all()) for a, b in pairwise(MOMENTS))
    _hold(in_order, "arrival <= enqueued <= first scheduled <= first token <= finished")
    if (requests["outcome"] == "unfinished").any():
        return
    gaps, gaps_s = steps.gaps + len(stalls_s), steps.gaps_s + float(stalls_s.sum())
    tokens = requests["output_tokens"].to_numpy()[completed]
    _hold(round(gaps) == int((tokens - 1).sum()), "number of ITL gaps = sum of (output - 1)")
    spans = float((requests["finished_s"] - requests["first_token_s"])[completed].sum())
    _hold(bool(np.isclose(gaps_s, spans, rtol=1e-9, atol=1e-6)), "sum of ITL = sum of (finished - first token)")


def _hold(truth: bool, identity: str) -> None:
    if not truth:
        raise AssertionError(f"identity broken: {identity}")
