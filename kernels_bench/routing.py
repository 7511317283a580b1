"""Which experts each token goes to, with a skew that a real router has and an even one lacks."""

import numpy as np
from numpy.typing import NDArray


def popularity(experts: int, skew: float) -> NDArray[np.float64]:
    """Probability that an expert is a token's first choice: Zipf, expert i in proportion to (i + 1)^-skew.

    0 is even routing; at 1 the first of 64 experts draws a fifth of the first choices.
    """
    weights = (1.0 + np.arange(experts)) ** -skew
    return weights / weights.sum()


def route(tokens: int, experts: int, top_k: int, skew: float, seed: int = 0) -> NDArray[np.int64]:
    """The ``top_k`` distinct experts of each token: (tokens, top_k), tokens drawing alike and on their own.

    An expert is drawn by popularity among those that the token has not drawn yet, all at once by adding Gumbel noise
    to log popularity and taking the largest [Yellott 1977, doi:10.1016/0022-2496(77)90026-8].
    """
    noise = np.random.default_rng(seed).gumbel(size=(tokens, experts))
    scores = np.log(popularity(experts, skew)) + noise
    return np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
