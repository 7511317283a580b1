"""What of a run lies outside the sizes that its step times were measured at, in words."""

from capsim.kernel_tables.table import CONTEXT
from capsim.measured import Measured

Range = tuple[float, float]
ROOFLINE = "the fitted sum-roofline extends it"


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


def prefill_behind(measured: Measured | None, cached_share: float, in_parts: bool) -> list[str]:
    """A note where prefill read earlier context, and was only measured without.

    Parameters
    ----------
    cached_share
        Of the prompt tokens those that were found in the prefix cache.
    in_parts
        Whether prompts were computed in parts.
    """
    tables = measured.kernels if measured else ()
    longest = [table.domain[CONTEXT][1] for table in tables if table.op == "prefill_attention"]
    causes = [f"cached prefixes ({cached_share:.0%} of prompt tokens)"] if cached_share else []
    causes += ["earlier parts of its prompt"] if in_parts else []
    if not causes or not longest or max(longest) > 0:
        return []
    return [f"prefill that reads {' and '.join(causes)} was not measured: {ROOFLINE}"]
