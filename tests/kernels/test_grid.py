"""The order of a grid: any prefix of it spans it."""

from kernels_bench.grid import coarse_to_fine, curves_coarse_to_fine, doubled


def test_ends_come_first_then_middles():
    assert [size for (size,) in coarse_to_fine([1, 2, 4, 8, 16])] == [1, 16, 4, 2, 8]


def test_a_product_is_as_fine_as_its_finest_coordinate():
    points = list(coarse_to_fine([1, 2, 3], [10, 20, 30]))
    assert sorted(points) == [(a, b) for a in (1, 2, 3) for b in (10, 20, 30)]
    assert set(points[:4]) == {(1, 10), (1, 30), (3, 10), (3, 30)}


def test_an_axis_of_one():
    assert list(coarse_to_fine([7])) == [(7,)]
    assert list(coarse_to_fine([7], [1, 2])) == [(7, 1), (7, 2)]


def test_doubled_sizes_have_one_half_way():
    assert doubled(512, 2048) == [512, 768, 1024, 1536, 2048]


def test_the_ends_of_a_short_curve_come_as_early_as_those_of_a_long_one():
    points = list(curves_coarse_to_fine({1: [10, 20, 30, 40], 2: [10, 20, 30], 3: [10, 20]}))
    assert points[:4] == [(1, 10), (1, 40), (3, 10), (3, 20)]
    assert sorted(points) == [(1, 10), (1, 20), (1, 30), (1, 40), (2, 10), (2, 20), (2, 30), (3, 10), (3, 20)]
