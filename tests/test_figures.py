import numpy as np
import pytest

from capsim.workload.figures import distribution_distance, figures, index_of_dispersion, variation
from capsim.workload.streams import stream

GENERATOR = stream(5, 0, "figures")


def test_even_arrivals_do_not_clump():
    arrival_s = np.arange(0.05, 600, 0.1)
    seen = figures(arrival_s, np.full(6000, 7), np.full(6000, 3), 600.0)
    assert seen.rate_per_s == 10
    assert seen.cv == pytest.approx(0, abs=1e-9)
    assert seen.idc == (0, 0, 0)
    assert seen.peak_to_mean_minute == 1
    assert seen.prompt_tokens.model_dump() == {"mean": 7, "p50": 7, "p95": 7, "p99": 7}


def test_dispersion_counts_whole_windows_only():
    """Counts 2, 0, 2, 0, …: variance 1 over mean 1, and the half window at the end left out."""
    arrival_s = np.repeat(np.arange(0, 40, 2.0), 2) + 0.25
    assert index_of_dispersion(arrival_s, 1.0, 40.5) == 1
    assert index_of_dispersion(arrival_s, 2.0, 40.5) == 0
    assert index_of_dispersion(arrival_s, 10.0, 40.5) is None


def test_variation_inside_minutes_does_not_see_the_rate_move():
    rates = np.repeat([1.0, 20.0] * 15, 60)
    counts = GENERATOR.poisson(rates)
    arrival_s = np.sort(np.repeat(np.arange(len(rates)), counts) + GENERATOR.random(counts.sum()))
    seen = figures(arrival_s, np.ones(len(arrival_s)), np.ones(len(arrival_s)))
    assert seen.cv > 1.3
    assert seen.cv_in_minute == pytest.approx(1, abs=0.03)


def test_what_cannot_be_known_is_none():
    alone = figures(np.array([0.0]), np.array([5]), np.array([6]))
    assert (alone.rate_per_s, alone.cv, alone.idc, alone.peak_to_mean_minute) == (None, None, (None,) * 3, None)
    assert variation(np.zeros(100)) is None
    century = figures(np.array([0.0, 3.2e9]), np.array([5, 5]), np.array([6, 6]))
    assert century.idc_1s is None


def test_distance_of_distributions():
    assert distribution_distance(np.array([1, 2, 3]), np.array([3, 2, 1])) == 0
    assert distribution_distance(np.array([1, 2]), np.array([5])) == 1
    assert distribution_distance(np.array([1, 2, 3, 4]), np.array([1, 2])) == 0.5
