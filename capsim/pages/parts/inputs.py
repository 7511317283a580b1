"""The sidebar of a plan: what is asked, all of it in the URL."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import streamlit as st

from capsim import units
from capsim.errors import ScenarioError
from capsim.glossary import METRICS
from capsim.pages.parts import own_facts, scenarios
from capsim.scenario import scenario_of

BOUND: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}
OWN = "its node's"
SWITCH = {None: "the engine's", True: "on", False: "off"}
OF_A_NODE = ("engine=null", "price=null", "parallelism=null", "kv_capacity_tokens=null")
"""What a scenario says of its own node holds for no other one."""
PATHS = {
    "model": "model", "weights": "weights", "kv": "kv_format", "users": "plan.users", "ttft": "slo.ttft_s",
    "tpot": "slo.tpot_s", "attained": "slo.attained", "price": "price.usd_per_hour", "engine": "engine",
    "seqs": "scheduler.max_num_seqs", "step_tokens": "scheduler.max_num_batched_tokens",
    "prefix": "scheduler.enable_prefix_caching", "replications": "replications",
}  # fmt: skip
"""The key of a scenario behind each input but the nodes."""


@dataclass(frozen=True)
class Asked:
    """A scenario by its key, and what a visitor changed of it."""

    scenario: str
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """A scenario file that says all of it."""
        return scenarios.text(self.scenario, self.overrides)

    def shared(self, text: str) -> str:
        """The same where entries of the visitor's own are a file beside it, as the catalog page gives them."""
        place = own_facts.file()
        return text if place is None else text.replace(str(place), place.name)

    def command(self, verb: str) -> str:
        return self.shared(scenarios.command(verb, self.scenario, self.overrides))


@st.cache_data(max_entries=64)
def defaults(key: str) -> dict[str, Any]:
    """What a scenario itself says, by the name of each input."""
    scenario, catalog = scenario_of(scenarios.path_of(key)), own_facts.catalog()
    slo, scheduler, price = scenario.slo, scenario.scheduler, scenario.price
    limits = {} if slo is None else slo.thresholds
    return {
        "model": scenario.model, "weights": scenario.weights or catalog.models[scenario.model].weight_formats[0],
        "kv": scenario.kv_format, "nodes": [scenario.node], "users": scenario.plan.users,
        "ttft": _text(limits.get("ttft_s")), "tpot": _text(limits.get("tpot_s")),
        "attained": 0.95 if slo is None else slo.attained, "price": None if price is None else price.usd_per_hour,
        "engine": scenario.engine or OWN, "seqs": scheduler.max_num_seqs,
        "step_tokens": scheduler.max_num_batched_tokens, "prefix": SWITCH[scheduler.enable_prefix_caching],
        "replications": scenario.replications,
    }  # fmt: skip


def _text(limit_s: float | None) -> str:
    return "" if limit_s is None else units.seconds(limit_s)


def sidebar() -> list[Asked]:
    """Draw the inputs and read them: the plan from each of the chosen nodes, the first first."""
    with st.sidebar:
        key = st.selectbox("Scenario", scenarios.keys(), key="scenario", on_change=_start_over, **BOUND)
        st.caption(scenarios.about(key))
        was = defaults(key)
        picked = _model(was) | _load(was) | _engine(was)
        _own_scenario()
    own = [] if (place := own_facts.file()) is None else [f"catalog={place}"]
    changed = (*own, *_changed(picked, was))
    if picked["nodes"] == was["nodes"]:
        return [Asked(key, changed)]
    return [Asked(key, (*_nodes(picked["nodes"], node, was), *changed)) for node in picked["nodes"]]


def _start_over() -> None:
    """Another scenario brings its own answers to every question."""
    st.session_state.update(defaults(st.session_state["scenario"]))


def _model(was: dict[str, Any]) -> dict[str, Any]:
    catalog = own_facts.catalog()
    model = _select("Model", list(catalog.models), "model", was, on_change=_fitting_weights)
    weights = catalog.models[model].weight_formats
    return {
        "model": model,
        "weights": _select("Weights", list(weights), "weights", was),
        "kv": _select("KV cache format", list(catalog.kv_formats), "kv", was),
        "nodes": st.multiselect("Node types, side by side", list(catalog.nodes), was["nodes"], key="nodes", **BOUND)
        or was["nodes"],
    }


def _fitting_weights() -> None:
    """Weights that the catalog has of the model: those chosen before, where it has them."""
    known = own_facts.catalog().models[st.session_state["model"]].weight_formats
    if st.session_state.get("weights") not in known:
        st.session_state["weights"] = known[0]


def _load(was: dict[str, Any]) -> dict[str, Any]:
    users = st.number_input(
        "Users with a chat open", 1, 10_000_000, was["users"], key="users", placeholder="one node",
        help="Sizes the fleet, with one node to spare. Empty: one node.", **BOUND,
    )  # fmt: skip
    half, other = st.columns(2)
    return {
        "users": users,
        "ttft": half.text_input("TTFT within", was["ttft"], 12, "ttft", help=METRICS["ttft_s"].definition, **BOUND),
        "tpot": other.text_input("TPOT within", was["tpot"], 12, "tpot", help=METRICS["tpot_s"].definition, **BOUND),
        "attained": half.number_input(
            "for a share of", 0.5, 1.0, was["attained"], 0.01, key="attained",
            help="Share of the offered requests that must stay inside every threshold.", **BOUND,
        ),
        "price": other.number_input(
            "USD an hour", 0.01, 1e6, was["price"], key="price", placeholder="catalog",
            help="Of one node of the first type, all-in. Empty: the price in the catalog.", **BOUND,
        ),
    }  # fmt: skip


def _engine(was: dict[str, Any]) -> dict[str, Any]:
    with st.expander("Engine"):
        return {
            "engine": _select("Engine", [OWN, *own_facts.catalog().engines], "engine", was),
            "seqs": st.number_input("Sequences at once, at most", 1, 65536, was["seqs"], key="seqs", **BOUND),
            "step_tokens": st.number_input(
                "Tokens a step, at most", 1, 1 << 22, was["step_tokens"], key="step_tokens", **BOUND
            ),
            "prefix": _select("Prefix cache", list(SWITCH.values()), "prefix", was),
            "replications": st.number_input(
                "Replications", 1, 20, was["replications"], key="replications",
                help="More of them narrow the intervals, and take longer.", **BOUND,
            ),
        }  # fmt: skip


def _select(label: str, options: list[str], key: str, was: dict[str, Any], **more: Any) -> str:
    index = options.index(was[key]) if was[key] in options else 0
    return st.selectbox(label, options, index, key=key, **more, **BOUND)


def _own_scenario() -> None:
    with st.expander("A scenario of your own"):
        file = st.file_uploader("YAML file", ["yaml", "yml"], key="file", max_upload_size=1)
        if file is not None:
            st.button("Open it", on_click=_open, args=(file.getvalue(),))
        if (problems := st.session_state.pop("refused", None)) is not None:
            st.error(problems, icon=":material/error:")


def _open(content: bytes) -> None:
    try:
        st.session_state["scenario"] = scenarios.upload(content)
    except ScenarioError as error:
        st.session_state["refused"] = str(error)
    else:
        _start_over()


def _changed(picked: dict[str, Any], was: dict[str, Any]) -> Iterator[str]:
    given = {OWN: None, **{text: value for value, text in SWITCH.items()}, "": None}
    for name, path in PATHS.items():
        value = picked[name]
        if value != was[name]:
            yield f"{path}={json.dumps(given.get(value, value))}".replace('"', "")


def _nodes(chosen: list[str], first: str, was: dict[str, Any]) -> Iterator[str]:
    if [first] != was["nodes"]:
        yield from (f"node={first}", *OF_A_NODE)
    if len(chosen) > 1:
        yield f"plan.nodes={json.dumps(chosen)}".replace('"', "")
