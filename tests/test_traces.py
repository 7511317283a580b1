from pathlib import Path

import numpy as np
import pytest

from capsim.errors import ScenarioError
from capsim.workload.traces import read_trace

SHARED = Path(__file__).parents[2] / "shared" / "traces"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the trace folder is not beside the checkout")


@needs_shared
def test_azure_2023_chat_whole():
    trace = read_trace(SHARED / "AzureLLMInferenceTrace_conv.csv")
    assert len(trace) == 19_366
    assert len(trace) / trace.arrival_s[-1] == pytest.approx(5.53, abs=0.01)
    assert trace.prompt_tokens.mean() == pytest.approx(1155, abs=1)
    assert np.median(trace.output_tokens) == 129


@needs_shared
def test_mooncake_by_column_name():
    trace = read_trace(SHARED / "mooncake_conversation_trace.jsonl")
    assert len(trace) / trace.arrival_s[-1] == pytest.approx(3.40, abs=0.02)
    assert trace.prompt_tokens.mean() == pytest.approx(12035, abs=1)


def test_any_csv_by_columns(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("when,in,out\n3.5,10,20\n1.5,30,40\n")
    trace = read_trace(path, {"arrival": "when", "prompt_tokens": "in", "output_tokens": "out"})
    assert trace.arrival_s.tolist() == [0, 2]
    assert trace.prompt_tokens.tolist() == [30, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV"),
        ("a,b\n1,2\n", "fit no known trace schema"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,x,44\n",
            "t.csv:2 ContextTokens: not a number: 'x'",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,5,4\n2023-11-16,-5,4\n",
            "t.csv:3 ContextTokens",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnever,5,4\n", "t.csv:2 TIMESTAMP"),
    ],
)
def test_malformed_traces_say_where(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        read_trace(path)
    assert message in str(caught.value)


def test_a_missing_trace_and_broken_json_say_where(tmp_path):
    with pytest.raises(ScenarioError, match="trace file not found"):
        read_trace(tmp_path / "gone.csv")
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{oops\n')
    with pytest.raises(ScenarioError, match="t.jsonl:2: not JSON"):
        read_trace(path)
