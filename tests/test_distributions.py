import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from capsim.workload.distributions import Distribution, draw_tokens
from capsim.workload.streams import stream

parse = TypeAdapter(Distribution).validate_python
UNIFORMS = stream(7, 0, "lengths").random((200_000, 2))


@pytest.mark.parametrize(
    ("spec", "mean"),
    [
        ({"kind": "constant", "value": 5}, 5),
        ({"kind": "uniform", "low": 80, "high": 120}, 100),
        ({"kind": "exponential", "mean": 30}, 30),
        ({"kind": "geometric", "mean": 200}, 200),
        ({"kind": "lognormal", "mu": 4.0, "sigma": 0.5}, np.exp(4.125)),
        ({"kind": "grid", "quantiles": [0, 0.5, 1], "values": [10, 20, 40]}, 22.5),
        (
            {
                "kind": "mixture",
                "parts": [
                    {"weight": 3, "of": {"kind": "constant", "value": 10}},
                    {"weight": 1, "of": {"kind": "uniform", "low": 20, "high": 40}},
                ],
            },
            15,
        ),
    ],
)
def test_means(spec, mean):
    assert parse(spec).draw(UNIFORMS).mean() == pytest.approx(mean, rel=0.01)


def test_tokens_are_whole_and_at_least_one():
    tokens = draw_tokens(parse({"kind": "uniform", "low": 0.1, "high": 2.4}), UNIFORMS)
    assert set(tokens) == {1, 2}


def test_streams_do_not_shift_each_other():
    assert np.array_equal(stream(7, 0, "lengths").random(5), stream(7, 0, "lengths").random(5))
    assert not np.array_equal(stream(7, 0, "think").random(5), stream(7, 0, "lengths").random(5))
    assert not np.array_equal(stream(7, 1, "lengths").random(5), stream(7, 0, "lengths").random(5))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "uniform", "low": 5, "high": 1}, "below low"),
        ({"kind": "constant", "value": -2}, "greater than 0"),
        ({"kind": "grid", "quantiles": [0, 1], "values": [3, 2]}, "must not fall"),
        ({"kind": "pareto"}, "expected tags"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(ValidationError, match=message):
        parse(spec)
