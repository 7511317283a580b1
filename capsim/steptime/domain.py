"""What of a run lies outside the sizes that its step times were measured at, in words."""

Range = tuple[float, float]


def outside(what: str, reached: Range, measured: Range, how: str) -> list[str]:
    """Notes where a run went beyond the measured sizes, or stayed below them.

    Parameters
    ----------
    what
        The size in words with a place for its number: ``steps of {:,.0f} tokens lie``.
    reached
        The smallest size that tells of a run below what was measured, and the largest of the run.
    how
        What stands in for a measurement there.
    """
    (least, most), (low, high) = reached, measured
    notes = []
    if most > high:
        notes.append(f"{what.format(most)} beyond the measured {high:,.0f}: {how}")
    if least < low:
        notes.append(f"{what.format(least)} below the measured {low:,.0f}: {how}")
    return notes
