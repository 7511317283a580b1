"""The order in which a grid is measured: ends first, then middles, so that a run cut short still spans it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product


def coarse_to_fine(*axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The points of the product of `axes`, coarse ones first: a point is as fine as its finest coordinate."""
    levels = [_levels(axis) for axis in axes]
    yield from sorted(product(*axes), key=lambda point: max(map(dict.__getitem__, levels, point)))


def curves_coarse_to_fine(curves: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """The points (at, size) of curves that may differ in length, coarse ones first: both ends of the outer curves."""
    levels, outer = {at: _levels(sizes) for at, sizes in curves.items()}, _levels(list(curves))
    points = [(at, size) for at, sizes in curves.items() for size in sizes]
    yield from sorted(points, key=lambda point: max(outer[point[0]], levels[point[0]][point[1]]))


def _levels(axis: Sequence[int]) -> dict[int, int]:
    """The level of each value: 0 for the two ends, 1 for the middle, 2 for the quarters and so on."""
    level, spans = {axis[0]: 0, axis[-1]: 0}, [(0, len(axis) - 1)]
    for first, last in spans:  # grows while it is read: breadth first
        middle = (first + last) // 2
        if middle not in (first, last):
            level[axis[middle]] = 1 + max(level[axis[first]], level[axis[last]])
            spans += [(first, middle), (middle, last)]
    return level


def doubled(least: int, most: int) -> list[int]:
    """`least`, twice, four times it and so on to `most`, and the sizes half way between."""
    sizes = [least << power for power in range((most // least).bit_length())]
    return sorted({*sizes, *(size * 3 // 2 for size in sizes[:-1])})
