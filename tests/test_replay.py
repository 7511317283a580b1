"""A trace replayed closed: later turns wait for earlier ones, and pause as the trace says."""

import numpy as np
import pytest
from clusters import check_identities, cluster

from capsim.capacity.traced import with_drawn_sessions
from capsim.errors import ScenarioError
from capsim.experiment import run
from capsim.scenario import resolve
from capsim.sim.cluster import simulate
from capsim.workload.chats import sample
from capsim.workload.requests import traffic, with_users
from capsim.workload.spec import Workload
from capsim.workload.traces import Trace, read_trace

HEAD = "arrival_s,prompt_tokens,output_tokens,session,turn,think_s\n"
ROWS = "0,40,30,a,1,\n1,60,5,a,2,2.5\n1.5,50,5,b,1,\n2,50,5,,,\n3,90,5,a,3,7\n"


def replayed(folder, text, spec=None, **changes):
    path = folder / "t.csv"
    path.write_text(text)
    workload = Workload.model_validate({"trace": path, "replay": "closed", **changes})
    records = simulate(spec or cluster(), traffic(workload, read_trace(path), 1, 0))
    requests = records.requests_table()
    check_identities(records)
    return requests.sort_values("request").reset_index(drop=True)


def test_a_later_turn_comes_its_pause_after_the_one_before(tmp_path):
    requests = replayed(tmp_path, HEAD + ROWS)
    first, second, third = (requests[requests["prompt_tokens"] == tokens].iloc[0] for tokens in (40, 60, 90))
    assert second["arrival_s"] == pytest.approx(first["finished_s"] + 2.5)
    assert third["arrival_s"] == pytest.approx(second["finished_s"] + 7)
    assert [first["think_s"], second["think_s"], third["think_s"]] == [2.5, 7, 0]
    assert [first["turn"], second["turn"], third["turn"]] == [0, 1, 2]
    others = requests[requests["prompt_tokens"] == 50]
    assert others["arrival_s"].tolist() == [1.5, 2]
    assert others["session"].nunique() == 2


def test_a_slower_fleet_delays_later_turns(tmp_path):
    fast, slow = (
        replayed(tmp_path, HEAD + ROWS, cluster(lambda batch, s=seconds: s)) for seconds in (0.01, 0.5)
    )  # fmt: skip
    assert slow["arrival_s"].max() > fast["arrival_s"].max() + 10


def test_those_who_follow_one_request_come_at_once(tmp_path):
    """An agent sends two calls when the first has ended, as the trace's parents say."""
    text = "arrival_s,prompt_tokens,output_tokens,request,parent,think_s\n0,40,30,x,,\n1,60,5,y,x,1\n1,61,5,z,x,1\n"
    requests = replayed(tmp_path, text)
    assert requests["arrival_s"].tolist()[1:] == pytest.approx([requests["finished_s"][0] + 1] * 2)
    assert requests["session"].nunique() == 1


def test_turned_away_requests_do_not_end_their_session(tmp_path):
    requests = replayed(tmp_path, HEAD + ROWS.replace("0,40,30", "0,40,99999"))
    assert len(requests) == 5
    assert (requests["outcome"] == "rejected").sum() == 1
    assert requests["arrival_s"].tolist().count(2.5) == 1


def test_a_part_of_a_trace_is_replayed_whole(tmp_path):
    generator = np.random.default_rng(1)
    arrival_s, session = np.sort(generator.random(300) * 60), generator.integers(0, 60, 300)
    rows = (f"{at:.3f},20,4,{number},,0.5\n" for at, number in zip(arrival_s, session, strict=True))
    requests = replayed(tmp_path, HEAD + "".join(rows), requests=200)
    assert len(requests) == 200
    assert (requests["outcome"] == "completed").all()


SCENARIO = "model: llama-3.1-8b\nnode: h100x1\nworkload: {trace: t.csv, replay: closed}\n"


def test_a_scenario_replays_closed(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    summary = run(resolve(tmp_path / "s.yaml")).summary
    assert summary["requests"]["completed"] == 5
    assert summary["run"]["replications"] == 1


@pytest.mark.parametrize("replay", ["open", "closed"])
def test_sessions_of_a_trace_are_reported(tmp_path, replay):
    """Attached from their first arrival to their last end; what they have cached is not known."""
    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    (tmp_path / "s.yaml").write_text(SCENARIO.replace("closed", replay))
    done = run(resolve(tmp_path / "s.yaml"))
    summary, (replication,) = done.summary, done.replications
    table = replication.records.requests_table()
    spans = table.groupby("session").agg({"arrival_s": "min", "finished_s": "max"})
    start_s, end_s = replication.window_s
    inside_s = spans["finished_s"].clip(upper=end_s) - spans["arrival_s"]
    assert len(spans) == 3
    assert summary["sessions"]["attached"]["mean"] == pytest.approx(inside_s.sum() / (end_s - start_s))
    assert summary["sessions"]["attached"]["peak"] >= 2
    assert summary["sessions"]["cached"] is None
    assert (summary["sessions"]["cycle"] is None) == (replay == "open")
    assert summary["turns"]["first"]["requests"] == 3
    assert summary["turns"]["later"]["requests"] == 2


def test_a_trace_without_sessions_has_none(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,40,5\n1,40,5\n")
    (tmp_path / "s.yaml").write_text(SCENARIO.replace("closed", "open"))
    summary = run(resolve(tmp_path / "s.yaml")).summary
    assert summary["sessions"] is None
    assert summary["turns"] is None


@pytest.mark.parametrize(
    ("text", "scenario", "message"),
    [
        ("arrival_s,prompt_tokens,output_tokens\n0,4,5\n", SCENARIO, "the trace has no sessions"),
        ("arrival_s,prompt_tokens,output_tokens,session\n0,4,5,a\n", SCENARIO, "the trace has no think_s"),
        (HEAD + ROWS.replace("2,2.5", "2,"), SCENARIO, "1 later turns of the trace have no think_s"),
        (HEAD + ROWS.replace("2,2.5", "2,-1"), SCENARIO, "1 later turns of the trace have no think_s"),
        (HEAD, SCENARIO.replace("trace: t.csv, ", ""), "a closed replay is one of a trace"),
        (HEAD + ROWS, SCENARIO.replace("closed}", "closed, arrival: {kind: poisson, rate_per_s: 1}}"), "no arrival of"),
    ],
)
def test_what_cannot_be_replayed_closed_is_refused(tmp_path, text, scenario, message):
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "s.yaml").write_text(scenario)
    with pytest.raises(ScenarioError) as refused:
        resolve(tmp_path / "s.yaml")
    assert message in str(refused.value)
    assert "s.yaml:3" in str(refused.value)


GROWING = "0,400,30,a,1,\n1,440,20,a,2,2.5\n1.5,100,5,b,1,\n2,90,5,,,\n3,900,5,a,3,7\n"


@pytest.mark.parametrize("replay", ["open", "closed"])
@pytest.mark.parametrize("max_tokens", [None, 10])
def test_a_later_prompt_finds_its_sessions_context(tmp_path, replay, max_tokens):
    """Whole blocks of the last prompt and of the answer that was given, however long the next prompt is."""
    (tmp_path / "t.csv").write_text(HEAD + GROWING)
    (tmp_path / "s.yaml").write_text(SCENARIO.replace("closed", replay))
    done = run(resolve(tmp_path / "s.yaml", [f"workload.max_tokens={max_tokens}"] if max_tokens else []))
    table = done.replications[0].records.requests_table().set_index("prompt_tokens")
    answers = [min(tokens, max_tokens or 99) for tokens in (30, 20)]
    contexts = {440: 400 + answers[0] - 1, 900: 440 + answers[1] - 1}  # the last token has no KV yet
    assert table["cached_tokens"].to_dict() == {400: 0, 100: 0, 90: 0, **{k: v // 16 * 16 for k, v in contexts.items()}}
    assert any("begin with the last one and its answer" in note for note in done.summary["warnings"])


def test_contexts_that_do_not_grow_share_nothing_and_a_run_says_so(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + ROWS)  # 60 tokens after 40 and an answer of 30
    (tmp_path / "s.yaml").write_text(SCENARIO)
    done = run(resolve(tmp_path / "s.yaml"))
    assert done.summary["kv"]["hit_rate"] == 0
    assert any("no request is taken to share KV" in note for note in done.summary["warnings"])


def test_those_who_extend_one_prompt_each_have_their_own_continuation():
    parent = np.array([-1, 0, 0, 2])
    trace = Trace(np.arange(4.0), np.array([40, 80, 90, 200]), np.full(4, 10), parent=parent)
    chains = [request.prefix for request in traffic(Workload.model_validate({"trace": "t"}), trace, 1, 0).requests]
    assert chains == [((0, 50),), ((0, 50), (1, 90)), ((0, 50), (2, 100)), ((0, 50), (2, 100), (3, 210))]


def test_a_plan_draws_sessions_like_those_of_the_trace(tmp_path):
    rows = [(100 * user + 9 * turn, 400 + 60 * turn, 20, user, turn + 1, 3) for user in range(30) for turn in range(4)]
    (tmp_path / "t.csv").write_text(HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    drawn = with_drawn_sessions(resolve(tmp_path / "s.yaml"))
    loop = with_users(drawn.workload, 5, 60, 0)
    assert drawn.trace is None
    assert loop.session is not None
    assert loop.think_s.draw(np.full((1, 2), 0.5)) == pytest.approx(3)
    prompts = [chat.prompt_tokens for chat in sample(loop, 40)]
    assert set(map(tuple, prompts)) == {(400, 460, 520, 580)}
    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    without = resolve(tmp_path / "s.yaml")
    assert with_drawn_sessions(without) is without


def test_a_plan_says_what_of_its_prompts_a_trace_shares(tmp_path):
    """A system prompt of 160 tokens before 40 of one's own, once of single requests, once of contexts that grow."""
    (tmp_path / "s.yaml").write_text(SCENARIO.replace("t.csv, replay: closed", "t.csv"))
    head = "arrival_s,prompt_tokens,output_tokens,prefix_hashes,hash_tokens\n"
    alone = [f"{at},200,9,1 2 3 4 5 6 7 8 9 10 {at + 100},16\n" for at in range(200)]
    (tmp_path / "t.csv").write_text(head + "".join(alone))
    one_by_one = with_drawn_sessions(resolve(tmp_path / "s.yaml"))
    assert one_by_one.trace is not None
    assert one_by_one.warnings[-1].endswith("would hold 80% of the trace's prompt tokens")
    blocks = [[*range(1, 11), *range(1000 * at, 1000 * at + 5)] for at in range(1, 100)]
    chats = [
        f"{3 * at + turn},{200 + 48 * turn},8,{' '.join(map(str, keys[: 12 + 3 * turn]))},16\n"
        for at, keys in enumerate(blocks) for turn in range(2)
    ]  # fmt: skip
    (tmp_path / "t.csv").write_text(head + "".join(chats))
    drawn = with_drawn_sessions(resolve(tmp_path / "s.yaml"))
    assert drawn.trace is None
    # Of 200 tokens 160 are everybody's, of the next 248 the first 192 those of the last; the very first are new.
    assert f"of the trace's {(99 * (160 + 192) - 160) / (99 * 448):.0%}" in drawn.warnings[-1]
