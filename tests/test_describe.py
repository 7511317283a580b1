from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from capsim.catalog import load_catalog
from capsim.workload.describe import describe
from capsim.workload.generated import arrivals_in, requests_per_s
from capsim.workload.requests import draw_lengths
from capsim.workload.trace_figures import reuse
from capsim.workload.traces import PrefixHashes, Trace, read_trace
from capsim.workload.traces.follow import follows

SHARED = Path(__file__).parents[2] / "shared" / "traces"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the trace folder is not beside the checkout")


def small(**more):
    return Trace(np.array([0.0, 1.0, 5.0]), np.array([40, 40, 33]), np.array([4, 5, 6]), **more)


def test_reuse_is_of_leading_blocks_and_never_more_than_the_prompt():
    values, offsets = np.array([1, 2, 3, 1, 9, 3, 1, 2, 3]), np.array([0, 3, 6, 9])
    trace = small(prefix_hashes=PrefixHashes(offsets, values, 16))
    # The second shares one block (3 comes after 9, which is new), the third all three, but has 33 tokens only.
    assert reuse(trace) == (16 + 33) / (40 + 40 + 33)
    assert reuse(small()) is None


def test_sessions_and_gaps():
    found = describe(small(session=np.array([0, -1, 0])), {}).sessions
    assert (found.sessions, found.turns_mean, found.multi_turn_share, found.gap_s_p50) == (1, 2, 1, 5)
    assert describe(small(), {}).sessions is None
    assert describe(small(session=np.array([-1, -1, -1])), {}).sessions is None


def test_sessions_are_told_by_prompts_that_begin_with_a_whole_earlier_one():
    """Blocks of 16: the third has both full blocks of the first, the fourth only what everybody begins with."""
    blocks = [[1, 2, 3], [1, 7], [1, 2, 3, 4], [1, 8, 9]]
    offsets = np.cumsum([0, *map(len, blocks)])
    hashes = PrefixHashes(offsets, np.concatenate(blocks), 16)
    prompts, outputs = np.array([40, 20, 60, 40]), np.array([4, 4, 4, 4])
    trace = Trace(np.array([0.0, 1.0, 5.0, 6.0]), prompts, outputs, prefix_hashes=hashes)
    assert follows(trace).tolist() == [-1, -1, 0, -1]
    found = describe(trace, {})
    assert (found.sessions.inferred, found.sessions.sessions, found.sessions.gap_s_p50) == (True, 3, 5)
    assert found.figures.turns.mean == pytest.approx(4 / 3)


@needs_shared
def test_mooncakes_sessions_as_computed_before():
    found = describe(read_trace(SHARED / "mooncake_conversation_trace.jsonl"), {}).sessions
    assert found.turns_mean == pytest.approx(1.49, abs=0.005)
    assert (found.turns_p50, found.turns_p95) == (1, 3)
    assert found.multi_turn_share == pytest.approx(0.25, abs=0.001)
    assert (found.gap_s_p5, found.gap_s_p50, found.gap_s_p95) == pytest.approx((27, 123, 606), rel=0.04)


def test_turns_order_a_session_where_they_are_known():
    session, turn = np.array([0, 0, 0, -1]), np.array([2.0, 1.0, 3.0, np.nan])
    trace = Trace(np.arange(4.0), np.full(4, 9), np.full(4, 3), session=session, turn=turn)
    assert follows(trace).tolist() == [1, -1, 0, -1]
    assert follows(replace(trace, turn=None)).tolist() == [-1, 0, 1, -1]


def test_a_presets_own_stream_is_nearest_to_it():
    presets = load_catalog().workloads
    for name in ("chat-kimi", "code-complete", "multimodal"):
        arrival_s = arrivals_in(presets[name], 5000 / requests_per_s(presets[name]), 3, 0)
        trace = Trace(arrival_s, *(tokens[: len(arrival_s)] for tokens in draw_lengths(presets[name], 9000)))
        assert next(iter(describe(trace, presets).distances)) == name


@needs_shared
@pytest.mark.parametrize(
    ("name", "share", "correlation"),
    [("mooncake_conversation_trace.jsonl", 0.374, 0.07), ("mooncake_synthetic_trace.jsonl", 0.651, -0.5)],
)
def test_mooncake_reuse_as_computed_before(name, share, correlation):
    found = describe(read_trace(SHARED / name), {})
    assert found.reuse == pytest.approx(share, abs=0.0005)
    assert found.correlation == pytest.approx(correlation, abs=0.02)
