import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim.errors import ScenarioError
from capsim.scenario import resolve
from capsim.scenario.lock import locked
from capsim.workload.figures import figures
from capsim.workload.traces import read, read_trace, tables

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
    assert trace.prefix_hashes.tokens == 512
    assert trace.prefix_hashes.of(1).tolist() == [0, *range(14, 28)]


@needs_shared
def test_a_coarse_clock_is_spread_and_said_so():
    """Kimi's chat is Poisson once its 3 s ticks are undone: CV 1.01, dispersion 1.05, 1.50 and 2.86."""
    trace = read_trace(SHARED / "mooncake_conversation_trace.jsonl")
    assert "ticks every 3 s" in trace.warnings[0]
    seen = figures(trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    assert seen.cv == pytest.approx(1.01, abs=0.015)
    assert seen.idc == pytest.approx((1.05, 1.50, 2.86), rel=0.05)


@needs_shared
@pytest.mark.parametrize("name", ["AzureLLMInferenceTrace_code.csv", "mooncake_synthetic_trace.jsonl"])
def test_a_fine_clock_is_left_alone(name):
    assert read_trace(SHARED / name).warnings == ()


def test_a_clock_of_tenths_is_told_of_and_left_alone(tmp_path):
    path = tmp_path / "tenths.csv"
    rows = [f"{tick / 5},10,5\n" for tick in range(200) for _ in range(1 + tick % 3)]
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(rows))
    trace = read_trace(path)
    assert "ticks every 0.2 s" in trace.warnings[0]
    assert set(np.round(trace.arrival_s * 5, 9) % 1) == {0}


def test_turns_at_one_instant_come_in_their_order(tmp_path):
    path = tmp_path / "turns.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens,session,turn\n0,20,5,a,2\n0,10,5,a,1\n9,30,5,a,3\n")
    assert read_trace(path).prompt_tokens.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "rows",
    [
        '{"arrival_s": 0, "prompt_tokens": true, "output_tokens": 5}\n',
        '{"arrival_s": 0, "prompt_tokens": 9, "output_tokens": 5, "prefix_hashes": [1], "hash_tokens": 0}\n',
        '{"arrival_s": 0, "prompt_tokens": 9, "output_tokens": 5, "prefix_hashes": [1], "hash_tokens": 16}\n'
        '{"arrival_s": 1, "prompt_tokens": 9, "output_tokens": 5, "prefix_hashes": [1], "hash_tokens": 32}\n',
    ],
)
def test_truths_and_unlike_hash_sizes_are_no_numbers(tmp_path, rows):
    path = tmp_path / "bad.jsonl"
    path.write_text(rows)
    with pytest.raises(ScenarioError, match=r"not a number|same in every row"):
        read_trace(path)


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
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n1,2,3,4\n", "t.csv:3: not a readable CSV"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n\n1,2,3\n\nnan,2,3\n", "t.csv:5 TIMESTAMP: not a number: 'nan'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,inf,3\n", "t.csv:2 ContextTokens: not a number: 'inf'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2.5,3\n", "t.csv:2 ContextTokens: must be a whole number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,0,3\n", "t.csv:2 ContextTokens: must be a positive number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3,4\n", "t.csv:2: rows have more fields"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,0\n", "no request with output tokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request with output tokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,1e12,3\n", "t.csv:2 ContextTokens: must be a positive number"),
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


@pytest.mark.parametrize("first", ["1700000000000000000", "0", "-1e308"])
def test_an_epoch_in_nanoseconds_is_no_century(tmp_path, first):
    path = tmp_path / "t.csv"
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{first},2,3\n1700003600000000000,2,3\n")
    with pytest.raises(ScenarioError, match=r"arrival_s: spans more than 30 years .*are these nanoseconds\?"):
        read_trace(path)


def test_a_missing_trace_and_broken_json_say_where(tmp_path):
    with pytest.raises(ScenarioError, match="trace file not found"):
        read_trace(tmp_path / "gone.csv")
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{oops\n')
    with pytest.raises(ScenarioError, match="t.jsonl:2: not JSON"):
        read_trace(path)


BURSTGPT = "{}Model,Request tokens,Response tokens,Total tokens,Log Type\n"


@pytest.mark.parametrize(
    ("text", "session"),
    [
        (BURSTGPT.format("Timestamp,") + "5,ChatGPT,472,18,490,Conversation log\n9,GPT-4,10,0,10,API log\n", None),
        (
            BURSTGPT.format("Timestamp,Session ID,Elapsed time,")
            + "19440110.0,1722ac82-aa,43,GPT-4,906,446,1352,Conversation log\n"
            + "19440109.0,,2,ChatGPT,36,29,65,API log\n19440120.0,,2,ChatGPT,36,0,65,API log\n",
            [-1, 0],
        ),
    ],
    ids=["1 and 2", "3"],
)
def test_burstgpt_drops_failures_and_counts_them(tmp_path, text, session):
    path = tmp_path / "BurstGPT.csv"
    path.write_text(text)
    trace = read_trace(path)
    assert trace.failed == 1
    assert "1 of " in trace.warnings[0]
    assert (None if trace.session is None else trace.session.tolist()) == session
    assert trace.class_names[trace.request_class[-1]] == "Conversation log"


def test_qwen_bailian_chats_are_chains_of_parents(tmp_path):
    rows = [
        {"chat_id": 55, "parent_chat_id": -1, "timestamp": 1.5, "turn": 1, "hash_ids": [7, 8], "type": "text"},
        {"chat_id": 60, "parent_chat_id": 999, "timestamp": 2.5, "turn": 4, "hash_ids": [], "type": "search"},
        {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.25, "turn": 2, "hash_ids": [7, 8, 9], "type": "text"},
    ]
    path = tmp_path / "qwen.jsonl"
    path.write_text("".join(json.dumps(row | {"input_length": 33, "output_length": 5}) + "\n\n" for row in rows[::-1]))
    trace = read_trace(path)
    assert trace.arrival_s.tolist() == [0, 1, 59.75]
    assert trace.parent.tolist() == [-1, -1, 0]
    assert trace.session.tolist() == [0, 1, 0]
    assert trace.turn.tolist() == [1, 4, 2]
    assert trace.prefix_hashes.tokens == 16
    assert [trace.prefix_hashes.of(row).tolist() for row in range(3)] == [[7, 8], [], [7, 8, 9]]
    assert [trace.class_names[code] for code in trace.request_class] == ["text", "search", "text"]


def test_azure_2025_vidur_and_vllm_results(tmp_path):
    azure = tmp_path / "lmm.csv"
    azure.write_bytes(
        b"\xef\xbb\xbfTIMESTAMP,NumImages,ContextTokens,GeneratedTokens\r\n"
        b"2024-10-15T12:00:00.269Z,0,770,491\r\n2024-10-15T14:00:05.819+02:00,1,949,126\r\n"
    )
    trace = read_trace(azure)
    assert trace.arrival_s == pytest.approx([0, 5.55])
    assert [trace.class_names[code] for code in trace.request_class] == ["0", "1"]
    vidur = tmp_path / "vidur.csv"
    vidur.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n4,10,2\n1,20,3\n")
    assert read_trace(vidur).prompt_tokens.tolist() == [20, 10]
    bench = tmp_path / "bench.json"
    document = {
        "start_times": [7.5, 7.0, 9.0],
        "input_lens": [5, 6, 7],
        "output_lens": [3, 4, 0],
        "errors": ["", "", "x"],
    }
    bench.write_text(json.dumps(document, indent=1))
    trace = read_trace(bench)
    assert (trace.arrival_s.tolist(), trace.prompt_tokens.tolist(), trace.failed) == ([0, 0.5], [6, 5], 1)
    bench.write_text(json.dumps({"input_lens": [5], "output_lens": [3]}))
    with pytest.raises(ScenarioError, match="no start_times"):
        read_trace(bench)


def test_the_superset_as_documented(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "arrival_s,prompt_tokens,output_tokens,session,turn,request,parent,think_s,request_class,prefix_hashes,hash_tokens\n"
        "0,40,5,a,1,r1,,,chat,3 4,16\n9,60,5,a,2,r2,r1,2.5,chat,3 4 5,16\n9.5,60,5,b,1,r3,,,code,,16\n"
    )
    trace = read_trace(path)
    assert trace.session.tolist() == [0, 0, 1]
    assert trace.parent.tolist() == [-1, 0, -1]
    assert trace.think_s == pytest.approx([np.nan, 2.5, np.nan], nan_ok=True)
    assert trace.prefix_hashes.of(1).tolist() == [3, 4, 5]
    assert trace.prefix_hashes.tokens == 16


def test_optional_columns_by_name(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("when,in,out,who,kind,step\n1,10,20,x,chat,1\n2,30,40,y,code,\n")
    names = {"arrival": "when", "prompt_tokens": "in", "output_tokens": "out"}
    trace = read_trace(path, {**names, "session": "who", "request_class": "kind", "turn": "step", "think_s": None})
    assert trace.session.tolist() == [0, 1]
    assert trace.class_names == ("chat", "code")
    path.write_text("when,in,out,id,of,blocks,each\n1,40,20,a,,1 2,16\n2,60,40,b,a,1 2 3,16\n")
    named = {"request": "id", "parent": "of", "prefix_hashes": "blocks", "hash_tokens": "each"}
    trace = read_trace(path, {**names, **named})
    assert trace.parent.tolist() == [-1, 0]
    assert (trace.prefix_hashes.of(1).tolist(), trace.prefix_hashes.tokens) == ([1, 2, 3], 16)
    with pytest.raises(ScenarioError, match="columns name 'parent', but request and parent go together"):
        read_trace(path, {**names, "parent": "of"})
    path.write_text("when,in,out,who,kind,step\n1,10,20,x,chat,1\n2,30,40,y,code,\n")
    with pytest.raises(ScenarioError, match="no column 'whom'"):
        read_trace(path, {**names, "session": "whom"})
    path.write_text("when,in,out,step\n1,10,20,1\n2,30,40,two\n")
    with pytest.raises(ScenarioError, match=r"mine.csv:3 step: not a number: 'two'"):
        read_trace(path, {**names, "turn": "step"})


@pytest.mark.parametrize("hashes", ['[1, "x"]', "[[1]]", "5", "[1e99]"])
def test_bad_hashes_say_where(tmp_path, hashes):
    path = tmp_path / "t.jsonl"
    good = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n'
    path.write_text(good + good.replace("[1]", hashes))
    with pytest.raises(ScenarioError, match="t.jsonl:2 hash_ids: not a list of whole numbers"):
        read_trace(path)


@pytest.mark.parametrize("changed", [{"hash_ids": [1, 3]}, {"turn": 2}, {"chat_id": 8, "parent_chat_id": 7}], ids=str)
def test_a_run_knows_its_trace_by_all_that_it_can_see(tmp_path, changed):
    row = {"timestamp": 0, "input_length": 40, "output_length": 5, "hash_ids": [1, 2], "turn": 1, "chat_id": 7,
           "parent_chat_id": -1}  # fmt: skip
    found = []
    for other in ({}, {}, changed):
        path = tmp_path / "t.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in (row, {**row, **other, "timestamp": 2})))
        scenario = tmp_path / "s.yaml"
        scenario.write_text("model: llama-3.1-8b\nnode: h100x1\nworkload: {trace: t.jsonl}\n")
        found.append(locked(resolve(scenario))["trace_sha256"])
    assert found[0] == found[1] != found[2]


def test_long_files_are_read_in_parts_and_longer_ones_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i},{i + 1},1\n" for i in range(1000)))
    whole = read_trace(path)
    monkeypatch.setattr(tables, "ROWS_A_CHUNK", 7)
    assert np.array_equal(read_trace(path).prompt_tokens, whole.prompt_tokens)
    monkeypatch.setattr(read, "MAX_ROWS", 999)
    with pytest.raises(ScenarioError, match="more than 999 rows"):
        read_trace(path)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from('0123456789.,-+eE\n\r"{}[]: aZT\ufeff\x00'), max_size=60), jsonl=st.booleans())
def test_any_text_is_read_or_refused(tmp_path_factory, text, jsonl):
    path = tmp_path_factory.mktemp("fuzz") / ("t.jsonl" if jsonl else "t.csv")
    head = "" if jsonl else "arrival_s,prompt_tokens,output_tokens\n"
    path.write_text(head + text, encoding="utf-8")
    try:
        trace = read_trace(path)
    except ScenarioError:
        return
    assert np.all(np.diff(trace.arrival_s) >= 0)
    assert trace.prompt_tokens.min() > 0
