"""Which points of a sweep nothing beats."""

import numpy as np
import pandas as pd


def with_best(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Points with both figures, and ``best``: "best" where no other is at least as low in both and lower in one."""
    known = frame.dropna(subset=[x, y]).sort_values([x, y], kind="stable")
    costs = known[y].to_numpy(float)
    cheapest_before = np.concatenate([[np.inf], np.minimum.accumulate(costs)[:-1]])
    return known.assign(best=np.where(costs < cheapest_before, "best", "beaten"))
