from pathlib import Path

import numpy as np
import pytest

from capsim.catalog import load_catalog
from capsim.workload.describe import describe, reuse
from capsim.workload.requests import draw_arrivals, draw_lengths
from capsim.workload.traces import PrefixHashes, Trace, read_trace

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


def test_a_presets_own_stream_is_nearest_to_it():
    presets = load_catalog().workloads
    for name in ("chat-kimi", "code-complete", "multimodal"):
        timed = presets[name].model_copy(update={"requests": 5000})
        trace = Trace(draw_arrivals(timed, 3, 0)[0], *draw_lengths(presets[name], 5000))
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
