"""Capacity where it is known exactly: users who think come to places that serve as a birth-death chain does.

Steps take the same time whatever is in them, and answers are geometric, so that a place is as good as exponential. A
user finds the others as if it were not there (arrival theorem), and has its first token once enough of them have ended.
"""

import numpy as np
import pytest
from scipy.stats import gamma

from capsim.capacity import find_capacity, instant, sessions
from capsim.queueing import birth_death
from capsim.scenario import Resolved, resolve
from capsim.steptime import FOREVER, StepTime

STEP_S, TOKENS, THINK_S = 0.005, 200, 10
SERVICE_S = STEP_S * TOKENS
SCENARIO = f"""\
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {{kind: poisson, rate_per_s: 1}}
  prompt_tokens: 10
  output_tokens: {{kind: geometric, mean: {TOKENS}}}
  think_s: {{kind: exponential, mean: {THINK_S}}}
scheduler: {{enable_prefix_caching: false}}
slo: {{ttft_s: 3 s}}
replications: 2
"""


class Constant:
    def step_time(self, batch):
        return StepTime(0.0, 0.0, 0.0, 0.0, STEP_S, "overhead")

    def decode_run(self, batch):
        return self.step_time(batch), 0.0, FOREVER

    def beyond(self, contexts, tokens):
        return []


def goodput(users, places, ttft_s):
    """Share of requests whose first token comes in time."""
    others = np.arange(users - 1)
    found = birth_death((users - 1 - others) / THINK_S, np.minimum(others + 1, places) / SERVICE_S)
    ends = np.maximum(0, np.arange(users) - places + 1)
    in_time = np.where(ends > 0, gamma.cdf(ttft_s - 1.5 * STEP_S, np.maximum(ends, 1), scale=SERVICE_S / places), 1.0)
    return float(found @ in_time)


def exact(places, ttft_s):
    users = 1
    while goodput(users + 1, places, ttft_s) >= 0.95:
        users += 1
    return users


@pytest.fixture
def constant(tmp_path, monkeypatch):
    monkeypatch.setattr(Resolved, "step_time_model", lambda self: Constant())
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return lambda *overrides: resolve(path, overrides)


@pytest.mark.parametrize(
    ("places", "ttft_s", "requests"),
    [(1, 3, 6_000), pytest.param(2, 3, 20_000, marks=pytest.mark.slow)],
)
def test_the_bracket_contains_the_chain_s_answer(constant, monkeypatch, places, ttft_s, requests):
    monkeypatch.setattr(sessions, "MIN_REQUESTS", requests)
    users = exact(places, ttft_s)
    found = find_capacity(constant(f"scheduler.max_num_seqs={places}", f"slo.ttft_s={ttft_s}"))
    assert found.high <= max(found.low + 1, 1.05 * found.low)
    assert found.low <= users < found.high, [goodput(n, places, ttft_s) for n in (users, users + 1)]


@pytest.mark.parametrize(("places", "ttft_s"), [(1, 3), (1, 5), (1, 8), (2, 3), (4, 2), (4, 3), (8, 1)])
def test_the_closed_form_is_within_a_user_of_the_chain(constant, places, ttft_s):
    one = constant(f"scheduler.max_num_seqs={places}", f"slo.ttft_s={ttft_s}")
    assert instant(one).sessions == pytest.approx(exact(places, ttft_s), abs=1)
