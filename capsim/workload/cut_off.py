"""Sessions seen through a window of time: its end cuts them off, and what it hid is made up for.

Who asked late was watched for a short time only, so long pauses are missed more often than short ones. A pause that was
seen counts for as many as asked, over those of them that were watched for as long (Horvitz and Thompson 1952,
doi:10.1080/01621459.1952.10483446). What the window's beginning hid looks like sessions that begin then.
"""

from typing import NamedTuple

import numpy as np


class Seen(NamedTuple):
    """Pauses from one request to the next: the ``later`` request's row, seconds, and how many such it stands for.

    ``turns`` has the share of whole sessions with 1, 2, … requests, shape (most,); the others have shape (n,).
    """

    later: np.ndarray
    gaps_s: np.ndarray
    weights: np.ndarray
    turns: np.ndarray


def seen(session: np.ndarray, arrival_s: np.ndarray) -> Seen:
    """What a window that ends with the last arrival shows of the sessions that its requests belong to."""
    order = np.argsort(session, kind="stable")
    first = np.diff(session[order], prepend=-1) != 0
    begins = np.flatnonzero(first)
    place = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    at_s = arrival_s[order]
    gaps_s, asked = np.diff(at_s)[~first[1:]], np.flatnonzero(~first[1:])
    watched_s = arrival_s.max() - at_s
    goes_on = [_stands_for(gaps_s[place[asked] == turn], watched_s[place == turn]) for turn in range(place.max() + 1)]
    # Of those who asked so often, as many went on as the pauses seen after it stand for.
    asked_so_often = np.bincount(place)
    shares = [min(1.0, weights.sum() / count) for weights, count in zip(goes_on, asked_so_often, strict=True)]
    reached = np.cumprod([1.0, *shares])
    return Seen(order[1:][~first[1:]], gaps_s, _stands_for(gaps_s, watched_s), reached[:-1] - reached[1:])


def _stands_for(gaps_s: np.ndarray, watched_s: np.ndarray) -> np.ndarray:
    """For each gap how many there were, seen or not."""
    long_enough = len(watched_s) - np.searchsorted(np.sort(watched_s), gaps_s, side="left")
    return len(watched_s) / long_enough.clip(min=1)
