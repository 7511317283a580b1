"""Each family of arrivals against theory: its rate, the variation of its gaps, its index of dispersion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.special import gamma as gamma_function

from capsim.stats import t_interval
from capsim.workload.arrivals import Single, long_run_rate_per_s, weibull_shape
from capsim.workload.classes import Superposed, superposed_arrivals
from capsim.workload.drawing import take, times
from capsim.workload.figures import index_of_dispersion, variation
from capsim.workload.requests import draw_arrivals, sample_lengths, traffic, with_users
from capsim.workload.spec import Workload
from capsim.workload.streams import stream

parse = TypeAdapter(Single).validate_python
REPLICATIONS, SPAN_S = 60, 1200.0
RENEWAL = [
    {"kind": "poisson", "rate_per_s": 5},
    {"kind": "gamma", "rate_per_s": 5, "cv": 3.5},
    {"kind": "gamma", "rate_per_s": 8, "cv": 0.5},
    {"kind": "weibull", "rate_per_s": 5, "cv": 2},
    {"kind": "weibull", "rate_per_s": 5, "shape": 0.7},
    {"kind": "windows", "window_s": "1h", "windows": [{"rate_per_s": 5, "cv": 2, "gaps": "weibull"}]},
]


def draw(spec, replication=0, span_s=SPAN_S):
    return take(times(parse(spec), stream(11, replication, "arrivals")), None, span_s)


def mean_and_half_width(values):
    """Mean and the half-width of its 99.9 % interval."""
    mean, half_width = t_interval(np.array(values), 0.999)
    return mean, half_width


def holds(values, expected, slack=0.0):
    mean, half_width = mean_and_half_width(values)
    assert abs(mean - expected) <= half_width + slack, f"{mean:.4g} ± {half_width:.2g}, theory {expected:.4g}"
    assert half_width <= 0.25 * expected + slack


def moments(spec):
    """Squared variation and third central moment of a family's gaps, over their mean."""
    if spec["kind"] == "poisson":
        return 1.0, 2.0
    if spec["kind"] == "gamma":
        return spec["cv"] ** 2, 2 * spec["cv"] ** 4
    only = spec["windows"][0] if spec["kind"] == "windows" else spec
    shape = only.get("shape") or weibull_shape(only["cv"])
    first, second, third = (gamma_function(1 + k / shape) for k in (1, 2, 3))
    return second / first**2 - 1, third / first**3 - 3 * second / first**2 + 2


@pytest.mark.parametrize("spec", RENEWAL, ids=lambda spec: f"{spec['kind']} {spec.get('cv', '')}")
def test_independent_gaps_have_the_dispersion_of_a_renewal_process(spec):
    """Var N(t) = c² λt + 1/6 + c⁴/2 − κ/3 in steady state, beyond a few gaps (Cox, Renewal Theory, 4.5)."""
    squared, third = moments(spec)
    rate = long_run_rate_per_s(parse(spec))
    drawn = [draw(spec, replication) for replication in range(REPLICATIONS)]
    holds([len(arrival_s) / SPAN_S for arrival_s in drawn], rate)
    holds([variation(np.diff(arrival_s)) for arrival_s in drawn], squared**0.5, slack=0.03 * squared**0.5)
    counts = np.array([np.bincount((a // 60).astype(int), minlength=20)[:20] for a in drawn])
    spread = ((counts - rate * 60) ** 2).mean(axis=1) / (rate * 60)
    holds(spread, squared + (1 / 6 + squared**2 / 2 - third / 3) / (rate * 60))


def test_a_renewal_process_begins_in_steady_state():
    """The first second holds as many as any other, though clumped gaps begin with a clump or a long pause."""
    for spec in ({"kind": "gamma", "rate_per_s": 5, "cv": 3}, {"kind": "weibull", "rate_per_s": 5, "cv": 3}):
        holds([len(draw(spec, replication, 1.0)) for replication in range(4000)], 5)


@pytest.mark.parametrize("window_s", [1.0, 10.0, 60.0])
def test_bursts_have_the_dispersion_of_an_interrupted_poisson_process(window_s):
    """IDC(t) = 1 + 2 λ p (1 − (1 − exp(−t/τ))/(t/τ)) τ: burst rate λ, off share p, 1/τ = 1/on + 1/off."""
    on_s, off_s, rate = 16.7, 43.2, 2.57
    spec = {"kind": "on_off", "rate_per_s": rate, "on_s": on_s, "off_s": off_s}
    turn = 1 / on_s + 1 / off_s
    burst = rate * (on_s + off_s) / on_s
    share = on_s / (on_s + off_s)
    limit = 2 * burst * (1 - share) / turn
    expected = 1 + limit * (1 - (1 - np.exp(-turn * window_s)) / (turn * window_s))
    spread = []
    for replication in range(REPLICATIONS):
        arrival_s = draw(spec, replication, 7200.0)
        counts = np.bincount((arrival_s // window_s).astype(int), minlength=int(7200 / window_s))
        spread.append(((counts[: int(7200 / window_s)] - rate * window_s) ** 2).mean() / (rate * window_s))
    holds(spread, expected)


def test_bursts_of_code_completion_as_measured():
    """ON 16.7 s, OFF 43.2 s, gaps of CV 2.2 at 9.02/s in a burst: 10.7, 54 and 126 were measured over 20 hours."""
    spec = {"kind": "on_off", "rate_per_s": 9.02 * 16.7 / 59.9, "on_s": 16.7, "off_s": 43.2, "cv": 2.2}
    drawn = [draw(spec, replication, 3436.0) for replication in range(REPLICATIONS)]
    for window_s, measured, slack in ((1.0, 10.7, 0.3), (10.0, 54, 2), (60.0, 126, 8)):
        holds([index_of_dispersion(a, window_s, 3436.0) for a in drawn], measured, slack)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kind": "profile", "rates": [1, 0, 3, 8], "period_s": "20 min"}, [300, 0, 900, 2400]),
        ({"kind": "profile", "rates": [1, 3], "mean_rate_per_s": 4, "period_s": 600}, [600, 1800, 600, 1800]),
        ({"kind": "profile", "rates": [1, 3], "period_s": 600, "start_s": 450}, [600, 600, 600, 600]),
        ({"kind": "spike", "rate_per_s": 2, "factor": 5, "at_s": 300, "for_s": 600}, [600, 3000, 3000, 600]),
        ({"kind": "ramp", "from_per_s": 0, "to_per_s": 8, "over_s": 600}, [600, 1800, 2400, 2400]),
        ({"kind": "ramp", "from_per_s": 6, "to_per_s": 2, "over_s": 1200}, [1650, 1350, 1050, 750]),
        (
            {"kind": "windows", "window_s": 300, "windows": [{"rate_per_s": 4, "cv": 1}, {"rate_per_s": 0}]},
            [1200, 0, 1200, 0],
        ),
    ],
)
def test_moving_rates_bring_what_their_integral_says(spec, expected):
    counts = np.array([np.bincount((draw(spec, r) // 300).astype(int), minlength=4)[:4] for r in range(20)])
    mean = counts.mean(axis=0)
    assert np.abs(mean - expected).max() <= 4 * np.sqrt(max(expected) / 20)
    inside = np.array(expected) > 0
    assert counts.var(axis=0)[inside] / mean[inside] == pytest.approx(1, abs=1)


def test_minutes_of_a_profile_are_poisson_given_their_rate():
    rates = np.exp(np.sin(np.arange(60)))
    spec = {"kind": "profile", "rates": rates.tolist(), "period_s": 3600}
    expected = 1 + 60 * rates.var() / rates.mean()
    holds([index_of_dispersion(draw(spec, r, 3600.0), 60.0, 3600.0) for r in range(REPLICATIONS)], expected)


CLASSES = {
    "kind": "superposed",
    "classes": [
        {"name": "chat", "arrival": {"kind": "poisson", "rate_per_s": 6}, "prompt_tokens": 10, "output_tokens": 1},
        {
            "name": "agents",
            "arrival": {"kind": "gamma", "rate_per_s": 2, "cv": 3},
            "prompt_tokens": 2000,
            "output_tokens": 7,
        },
    ],
}


BURSTS = [
    {"name": "clumpy", "arrival": {"kind": "gamma", "rate_per_s": 2, "cv": 4}},
    {"name": "steady", "arrival": {"kind": "poisson", "rate_per_s": 3}},
]


def test_superposed_classes_without_lengths_have_those_of_the_workload():
    lengths = {"prompt_tokens": {"kind": "uniform", "low": 50, "high": 150}, "output_tokens": 7}
    workload = Workload.model_validate({"arrival": {"kind": "superposed", "classes": BURSTS}, **lengths})
    arrival_s, classes = draw_arrivals(workload.changed(duration_s=SPAN_S), 11, 0)
    for index, one in enumerate(BURSTS):
        alone = take(times(parse(one["arrival"]), stream(11, 0, f"arrivals/{one['name']}")), None, SPAN_S)
        assert np.array_equal(arrival_s[classes == index], alone)
    prompt, output = sample_lengths(workload, None)
    assert prompt.mean() == pytest.approx(100, rel=0.02)
    assert set(output) == {7}
    assert with_users(workload, 5, 4000, 0).arrival.classes is None


def test_superposed_sessions_have_begun_as_often_as_all_classes_together():
    session = {"turns": {"kind": "geometric", "mean": 5}, "new_tokens": 20}
    lengths = {"prompt_tokens": 100, "output_tokens": 7, "think_s": 10, "session": session}
    workload = Workload.model_validate({"arrival": {"kind": "superposed", "classes": BURSTS}, **lengths})
    counts = [len(traffic(workload, None, 11, replication).begun) for replication in range(20)]
    holds(counts, 5 * 4 * 10, slack=5)
    with pytest.raises(ValidationError, match="classes with lengths of their own"):
        workload.changed(arrival=CLASSES, prompt_tokens=None, output_tokens=None)


@pytest.mark.parametrize(
    ("kind", "lengths", "message"),
    [
        ("superposed", [{"prompt_tokens": 5, "output_tokens": 5}, {}], "either every class has lengths"),
        ("superposed", [{"prompt_tokens": 5}, {}], "both prompt_tokens and output_tokens, or neither"),
        ("closed", [{}, {}], "needs prompt_tokens and output_tokens"),
    ],
)
def test_classes_with_half_of_their_lengths_are_refused(kind, lengths, message):
    classes = [{**one, **given} for one, given in zip(BURSTS, lengths, strict=True)]
    users = {"users": 3} if kind == "closed" else {}
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate({"arrival": {"kind": kind, "classes": classes, **users}})


def test_superposed_classes_keep_their_arrivals_and_lengths():
    arrival = Superposed.model_validate(CLASSES)
    arrival_s, classes = superposed_arrivals(arrival, None, SPAN_S, 11, 0)
    assert np.all(np.diff(arrival_s) >= 0)
    alone = take(times(arrival.classes[1].arrival, stream(11, 0, "arrivals/agents")), None, SPAN_S)
    assert np.array_equal(arrival_s[classes == 1], alone)
    flow = traffic(Workload(arrival=arrival, requests=9000), None, 11, 0)
    requests = list(flow.requests)
    assert len(requests) == len(flow.arrival_s) == 9000
    assert {(r.prompt_tokens, r.output_tokens) for r in requests} == {(10, 1), (2000, 7)}
    of_agents = np.array([r.prompt_tokens == 2000 for r in requests])
    assert np.array_equal(flow.arrival_s[of_agents], alone[: of_agents.sum()])


def test_a_closed_loop_of_classes_mixes_them_by_rate():
    workload = with_users(Workload(arrival=Superposed.model_validate(CLASSES)), 5, 4000, 0)
    prompt, output = sample_lengths(workload, None)
    assert (prompt == 2000).mean() == pytest.approx(0.25, abs=0.05)
    assert np.array_equal(prompt == 2000, output == 7)
    flow = traffic(workload, None, 1, 0)
    drawn = [next(flow.requests).prompt_tokens for _ in range(4000)]
    assert np.mean(np.array(drawn) == 2000) == pytest.approx(0.25, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from([
        *RENEWAL,
        {"kind": "on_off", "rate_per_s": 4, "on_s": 3, "off_s": 9, "cv": 2},
        {"kind": "profile", "rates": [0, 2, 9], "period_s": 60, "start_s": 31},
        {"kind": "spike", "rate_per_s": 3, "factor": 0.2, "at_s": 0, "for_s": 20},
        {"kind": "ramp", "from_per_s": 5, "to_per_s": 1, "over_s": 40},
        {"kind": "windows", "window_s": 7, "windows": [{"rate_per_s": 0}, {"rate_per_s": 6, "cv": 3}]},
    ]),
    limit=st.integers(1, 9000),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_times_rise_and_more_requests_only_append(spec, limit, seed):
    workload = Workload(arrival=spec, requests=limit)
    arrival_s, _ = draw_arrivals(workload, seed, 0)
    longer, _ = draw_arrivals(workload.model_copy(update={"requests": limit + 500}), seed, 0)
    assert len(arrival_s) == limit
    assert arrival_s[0] >= 0
    assert np.all(np.diff(arrival_s) >= 0)
    assert np.array_equal(arrival_s, longer[:limit])
    until = float(arrival_s[-1])
    by_time, _ = draw_arrivals(workload.model_copy(update={"requests": None, "duration_s": until or 1.0}), seed, 0)
    assert until == 0 or len(by_time) >= limit


@pytest.mark.parametrize("kind", ["poisson", "gamma", "weibull", "on_off"])
def test_a_rate_only_stretches_time(kind):
    more = {"gamma": {"cv": 3}, "weibull": {"cv": 3}, "on_off": {"on_s": 5, "off_s": 9}}.get(kind, {})
    slow, fast = (draw({"kind": kind, "rate_per_s": rate, **more}, span_s=600.0) for rate in (1, 4))
    if kind == "on_off":
        assert len(fast) > 2 * len(slow)
    else:
        assert np.allclose(slow, 4 * fast[: len(slow)])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "weibull", "rate_per_s": 1}, "one of cv and shape"),
        ({"kind": "weibull", "rate_per_s": 1, "cv": 2, "shape": 1}, "one of cv and shape"),
        ({"kind": "profile", "period_s": 60}, "give one of: rates"),
        ({"kind": "profile", "rates": [1, 2]}, "period_s"),
        ({"kind": "profile", "rates": [0, 0], "period_s": 60}, "no rate is above zero"),
        ({"kind": "windows", "window_s": 60, "windows": [{"rate_per_s": 0}]}, "no window has a rate"),
        ({"kind": "windows", "window_s": 1e-6, "windows": [{"rate_per_s": 1}]}, "greater than or equal to 1"),
        ({"kind": "on_off", "rate_per_s": 1, "on_s": 0, "off_s": 1}, "greater than 0"),
        ({"kind": "gamma", "rate_per_s": 1, "cv": float("nan")}, "finite"),
    ],
)
def test_bad_arrivals_are_refused(spec, message):
    with pytest.raises(ValidationError, match=message):
        parse(spec)


def test_classes_bring_their_own_lengths_and_names():
    with pytest.raises(ValidationError, match="bring their own lengths"):
        Workload.model_validate({"arrival": CLASSES, "prompt_tokens": 5})
    with pytest.raises(ValidationError, match="two classes are named 'chat'"):
        Superposed.model_validate({"kind": "superposed", "classes": [CLASSES["classes"][0]] * 2})
