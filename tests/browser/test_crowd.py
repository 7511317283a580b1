"""Many visitors at once, as their browsers talk to the server."""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from capsim import jobs

VISITORS = 20
MOST_BYTES = 2 * 2**30
PATIENCE_S = 300


def ask(socket, query, pressed=None):
    """Run the page once; the elements that it sends."""
    message = BackMsg()
    message.rerun_script.query_string = query
    if pressed is not None:
        widget = message.rerun_script.widget_states.widgets.add()
        widget.id, widget.trigger_value = pressed, True
    socket.send(message.SerializeToString())
    elements = []
    while True:
        answer = ForwardMsg()
        answer.ParseFromString(socket.recv(timeout=PATIENCE_S))
        if answer.WhichOneof("type") == "script_finished":
            return elements
        if answer.WhichOneof("type") == "delta":
            elements.append(answer.delta.new_element)


def of_kind(elements, kind):
    return [getattr(element, kind) for element in elements if element.WhichOneof("type") == kind]


@pytest.mark.slow
def test_twenty_visitors_each_ask_for_a_plan(served, monkeypatch):
    address, process, runs = served
    monkeypatch.setenv("CAPSIM_RUNS", str(runs))
    stream, before = address.replace("http", "ws"), jobs.names("plan")

    def visit(number):
        query = f"scenario=edge-llama8b-mac&users={100 + number}&replications=1"
        with connect(f"{stream}/_stcore/stream", subprotocols=["streamlit"], max_size=None) as tab:
            first = ask(tab, query)
            (simulate,) = (button.id for button in of_kind(first, "button") if button.label == "Simulate")
            second = ask(tab, query, simulate)
        return of_kind(first, "metric"), of_kind(first, "exception") + of_kind(second, "exception")

    with ThreadPoolExecutor(VISITORS) as visitors:
        seen = list(visitors.map(visit, range(VISITORS)))
    assert all(metrics and not errors for metrics, errors in seen)
    names = set(jobs.names("plan")) - set(before)
    assert len(names) == VISITORS
    assert jobs.ahead() == VISITORS
    states, ends = {}, time.monotonic() + PATIENCE_S
    while "done" not in states.values() and time.monotonic() < ends:
        states = {name: jobs.status(name).state for name in names}
        assert list(states.values()).count("running") <= jobs.AT_ONCE
        time.sleep(0.2)
    assert "done" in states.values()
    resident_bytes = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
    print(f"\nthe server holds {resident_bytes / 2**20:.0f} MiB")
    assert resident_bytes < MOST_BYTES
    for name in names:
        jobs.cancel(name)
