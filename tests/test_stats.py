"""Intervals that cover as often as they say, warm-up cuts on known transients, quantiles against numpy's."""

import math

import numpy as np
import pytest

from capsim.stats import (
    bounded,
    difference_interval,
    growth_per_s,
    mser5,
    quantile_interval,
    t_interval,
    warmup_length,
    weighted_quantiles,
)


def autoregressive(random, length, memory=0.8):
    """A stationary series with mean 0 whose values remember the one before."""
    series = np.empty(length)
    series[0] = random.normal() / math.sqrt(1 - memory**2)
    for index, shock in enumerate(random.normal(size=length - 1)):
        series[index + 1] = memory * series[index] + shock
    return series


def covers(interval, truth):
    mean, half_width = interval
    return abs(mean - truth) <= half_width


def test_t_interval_by_hand():
    # standard deviation 1, t(0.975, 2) = 4.303
    assert t_interval([1, 2, 3]) == pytest.approx((2, 4.3027 / math.sqrt(3)), rel=1e-4)


def test_t_interval_of_one_value_has_no_width():
    mean, half_width = t_interval([7.0])
    assert mean == 7
    assert math.isnan(half_width)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_t_interval_covers_the_mean(level):
    samples = np.random.default_rng(1).normal(5, 2, size=(1500, 6))
    share = np.mean([covers(t_interval(sample, level), 5) for sample in samples])
    assert share == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 1500))


def test_paired_differences_are_one_sample_and_others_are_welchs():
    one, other = [10.0, 20.0, 30.0], [11.0, 22.0, 33.0]
    # differences 1, 2, 3: standard deviation 1, t(0.975, 2) = 4.303
    assert difference_interval(one, other, paired=True) == pytest.approx((2, 4.3027 / math.sqrt(3)), rel=1e-4)
    # variances 100 and 121, each over 3: standard error 8.583, 3.964 degrees of freedom, t(0.975) = 2.787
    assert difference_interval(one, other, paired=False) == pytest.approx((2, 2.787 * 8.583), rel=1e-3)


def test_a_single_value_or_no_noise_has_no_width():
    assert math.isnan(difference_interval([1], [2], paired=True)[1])
    assert math.isnan(difference_interval([1], [2, 3], paired=False)[1])
    assert difference_interval([1, 1], [3, 3], paired=False) == (2, 0)


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_cover_the_truth(paired):
    random = np.random.default_rng(11)
    shared = random.normal(0, 3, size=(1500, 6)) if paired else 0
    one = random.normal(5, 1, size=(1500, 6)) + shared
    other = random.normal(7, 2, size=(1500, 6)) + shared
    pairs = zip(one, other, strict=True)
    share = np.mean([covers(difference_interval(*pair, paired=paired), 2) for pair in pairs])
    assert share == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 1500))


def test_intervals_stay_where_the_truth_can_be():
    assert bounded(1.0, 2.0) == [0.0, 3.0]
    assert bounded(0.9, 0.2, 1.0) == [pytest.approx(0.7), 1.0]
    assert bounded(1.0, math.nan) is None


def test_order_statistics_enclose_a_quantile():
    # of 100 values the median lies between ranks 40 and 61, a textbook case (Hahn and Meeker 1991, §5.2)
    assert quantile_interval(np.arange(1, 101), 0.5) == (50, 40, 61)
    at, low, high = quantile_interval(np.arange(1, 11), 0.95)
    assert (at, low) == (10, 8)
    assert math.isnan(high)  # ten values cannot bound their p95 from above


def test_order_statistics_cover_at_least_as_often_as_they_say():
    samples = np.random.default_rng(12).exponential(1, size=(1500, 200))
    truth = -math.log(1 - 0.9)
    held = [low <= truth <= high for _, low, high in (quantile_interval(sample, 0.9) for sample in samples)]
    assert 0.945 <= np.mean(held) <= 0.985


def test_mser5_cuts_a_transient():
    noise = np.random.default_rng(3).normal(size=2000)
    transient = np.where(np.arange(2000) < 300, 20.0, 0.0)
    assert mser5(noise + transient) == pytest.approx(300, abs=25)


def test_mser5_cuts_a_decaying_start():
    noise = np.random.default_rng(4).normal(size=2000)
    start = -30 * np.exp(-np.arange(2000) / 100)
    assert 200 <= mser5(noise + start) <= 600


def test_mser5_hardly_cuts_stationary_noise():
    random = np.random.default_rng(5)
    cuts = [mser5(random.normal(50, 1, size=2000)) for _ in range(50)]
    assert np.median(cuts) <= 100


def test_mser5_never_cuts_more_than_half():
    assert mser5(np.arange(1000.0)) == 500


@pytest.mark.parametrize("series", [[], [1, 2, 3], np.full(103, 0.1)], ids=["empty", "short", "constant"])
def test_mser5_keeps_what_it_cannot_judge(series):
    assert mser5(series) == 0


def test_warmup_is_the_floor_or_the_transient():
    noise = np.random.default_rng(6).normal(size=1000)
    transient = np.where(np.arange(1000) < 300, 20.0, 0.0)
    assert warmup_length(np.ones(1000)) == 100
    assert warmup_length(np.ones(1000), floor=0) == 0
    assert warmup_length(noise + transient) == mser5(noise + transient) > 100


def test_weighted_quantiles_are_those_of_repeated_values():
    random = np.random.default_rng(8)
    qs = np.concatenate([[0, 0.25, 0.5, 0.95, 0.99, 1], random.random(50)])
    for _ in range(50):
        values, weights = random.normal(size=12), random.integers(0, 6, size=12)
        repeated = np.quantile(np.repeat(values, weights), qs, method="inverted_cdf")
        assert np.array_equal(weighted_quantiles(values, weights, qs), repeated)


def test_weighted_quantiles_do_not_depend_on_the_unit_of_weight():
    assert weighted_quantiles([3, 1, 2], [0.25, 0.5, 0.25], [0.5, 0.51, 1]) == pytest.approx([1, 2, 3])


def test_growth_of_a_straight_line_is_its_slope():
    slope, half_width = growth_per_s(np.arange(0, 101), 5 + 3 * np.arange(0, 101))
    assert slope == pytest.approx(3)
    assert half_width == pytest.approx(0, abs=1e-9)


def test_growth_weighs_levels_by_the_time_they_last():
    """Ten quick samples of a spike must not outweigh the long level around it."""
    times_s = np.concatenate([[0], np.linspace(99.9, 100, 10), [100]])
    counts = np.concatenate([[4], np.full(10, 50), [4]])
    slope, _ = growth_per_s(times_s, counts)
    assert 0 < slope < 0.01


def test_growth_of_stationary_noise_is_within_its_half_width():
    random = np.random.default_rng(9)
    fits = [growth_per_s(np.arange(1000), random.normal(20, 3, 1000)) for _ in range(400)]
    share = np.mean([covers(fit, 0) for fit in fits])
    assert share == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 400))


def test_growth_of_an_overloaded_queue_is_seen():
    random = np.random.default_rng(10)
    queue = np.cumsum(random.poisson(1.1, 2000) - 1)
    slope, half_width = growth_per_s(np.arange(2000), queue)
    assert slope - half_width > 0
    assert slope == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([]), "values is empty"),
        (lambda: t_interval([1, 2], level=95), "level must be between 0 and 1"),
        (lambda: difference_interval([1], [1, 2], paired=True), "one length"),
        (lambda: quantile_interval([], 0.5), "values is empty"),
        (lambda: quantile_interval([1], 1), "q must be between"),
        (lambda: warmup_length([1, 2], floor=1), "floor must be in"),
        (lambda: weighted_quantiles([1, 2], [1], [0.5]), "weights must"),
        (lambda: weighted_quantiles([1, 2], [0, 0], [0.5]), "weights must"),
        (lambda: weighted_quantiles([1, 2], [1, -1], [0.5]), "weights must"),
        (lambda: weighted_quantiles([1, 2], [1, 1], [1.5]), "qs must be in"),
        (lambda: growth_per_s([0, 2, 1], [1, 1, 1]), "times_s must rise"),
        (lambda: growth_per_s([0, 1], [1]), "one value for each"),
        (lambda: growth_per_s([0, 1], [1, 1], groups=2), "groups must be at least 3"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
