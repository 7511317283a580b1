"""A trace replayed closed: later turns wait for earlier ones, and pause as the trace says."""

import numpy as np
import pytest
from clusters import check_identities, cluster

from capsim.errors import ScenarioError
from capsim.experiment import run
from capsim.scenario import resolve
from capsim.sim.cluster import simulate
from capsim.workload.requests import traffic
from capsim.workload.spec import Workload
from capsim.workload.traces import read_trace

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
