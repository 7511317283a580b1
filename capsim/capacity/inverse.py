"""The questions turned around: the longest context for the users, and the fastest answers for the money."""

from bisect import bisect_right
from typing import Any

from capsim import cost
from capsim.capacity.candidates import candidates
from capsim.capacity.fleet import smallest, with_nodes
from capsim.capacity.growth import nodes_for
from capsim.capacity.instant import fleet_of, of_nodes
from capsim.capacity.sessions import guess, with_sessions
from capsim.capacity.trials import OnTrial, Trials
from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import SCHEMA_VERSION, Run
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved, variant
from capsim.scenario.lock import locked

CLOSE, SHORTER, ALIKE = 1.02, 0.9, 1.01


def longest_context(resolved: Resolved, on_trial: OnTrial) -> tuple[dict[str, Any], Run]:
    """The longest prompts with which ``nodes`` carry ``plan.users`` inside the SLO, all of one length: by the closed
    form to 2 %, then simulated, a tenth shorter each time until the SLO is kept. Of a session the first prompt is
    meant, from which its context grows.

    Raises
    ------
    ScenarioError
        No users are asked for, or the prompts are a trace's.
    Infeasible
        Not even prompts of one token are served.
    Interrupted
        Ctrl-C.
    """
    users = _users(resolved)
    if resolved.trace is not None:
        message = "prompts of a trace are as long as they are"
        raise ScenarioError.one(message, path=resolved.path, key="workload.trace", hint="give prompt_tokens instead")

    def with_prompts(tokens: int) -> Resolved:
        return variant(resolved, [f"workload.prompt_tokens={tokens}"])

    def fits(tokens: int) -> bool:
        try:
            fleet = fleet_of(with_prompts(tokens))
        except (Infeasible, ScenarioError):  # longer than what a replica or the model takes
            return False
        return fleet.goodput(users) >= fleet.slo.attained

    fleet_of(with_prompts(1))
    low, high = 0, resolved.model.max_context_tokens
    while high - low > max(1, (CLOSE - 1) * low):
        middle = round((low * high) ** 0.5) if low else high // 8 or 1
        middle = min(high - 1, max(low + 1, middle))
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0:
        raise Infeasible("not even prompts of one token are served inside the SLO", remedies=["use more nodes"])
    trials, tokens, beyond = Trials(lambda tokens: with_sessions(with_prompts(tokens), users), on_trial), low, high
    while True:
        trials.replicate(tokens, resolved.scenario.replications)
        if trials.passes(tokens) or tokens == 1:
            break
        tokens, beyond = max(1, int(SHORTER * tokens)), tokens
    found = {
        "question": "longest context", "nodes": resolved.scenario.nodes, "estimated_prompt_tokens": low,
        "prompt_tokens": [tokens, beyond],
    }  # fmt: skip
    return _document(resolved, found, trials.run(tokens)), trials.run(tokens)


def fastest_answers(resolved: Resolved, max_monthly_usd: float, on_trial: OnTrial) -> tuple[dict[str, Any], Run]:
    """The fleet for ``plan.users`` with the lowest TPOT that costs no more than that a month: of each candidate as many
    nodes as the money buys, or fewer where these are as fast to 1 %, compared by the closed form; the best is simulated
    once.

    Raises
    ------
    ScenarioError
        No users are asked for, no SLO is given, or there are too many candidates.
    Infeasible
        No candidate keeps the SLO, with one node down, for the money.
    Interrupted
        Ctrl-C.
    """
    users = _users(resolved)

    def bought(one: Resolved) -> tuple[dict[str, Any], Resolved]:
        fleet = fleet_of(with_nodes(one, 1))
        needed = nodes_for(one, fleet, users, max(1, guess(fleet).sessions))
        if one.price is None:
            raise Infeasible("price unknown", remedies=["give a price"])
        usd = lambda nodes: cost.monthly_cost(one.price, nodes)["monthly_usd"]  # noqa: E731
        most = bisect_right(range(needed + users + 1), max_monthly_usd, key=usd) - 1
        if most < needed:
            raise Infeasible(f"the {needed:,} nodes that the users need cost ${usd(needed):,.0f} a month")
        tpot_s = lambda nodes: of_nodes(one, fleet.replica, nodes).latency(users)["tpot_s"]["p95"]  # noqa: E731
        enough = ALIKE * tpot_s(most)
        nodes = max(needed, smallest(lambda nodes: nodes >= most or tpot_s(nodes) <= enough, needed))
        seen = of_nodes(one, fleet.replica, nodes).latency(users)
        return {
            "node": one.scenario.node, "kv_format": one.scenario.kv_format, "parallelism": str(one.layout),
            "max_num_seqs": one.engine.max_num_seqs, "nodes": nodes, "monthly_usd": usd(nodes), "latency": seen,
        }, one  # fmt: skip

    found, excluded = candidates(resolved, bought)
    if not found:
        reasons = [f"{row['node']}, {row['kv_format']} KV: {row['reason']}" for row in excluded]
        raise Infeasible("\n".join([f"nothing for ${max_monthly_usd:,.0f} a month keeps the SLO", *reasons]))
    found.sort(key=lambda pair: (pair[0]["latency"]["tpot_s"]["p95"], pair[0]["monthly_usd"]))
    best, one = found[0]
    checked = _simulated(one, best["nodes"], users, on_trial)
    answer = {
        "question": "fastest answers", "max_monthly_usd": max_monthly_usd,
        "estimates": [row for row, _ in found], "excluded": excluded,
    }  # fmt: skip
    return _document(resolved, answer, checked), checked


def _users(resolved: Resolved) -> int:
    users = resolved.scenario.plan.users
    if users is None:
        message, hint = "this question is about a number of users", "such as plan: {users: 1000}"
        raise ScenarioError.one(message, path=resolved.path, key="plan.users", hint=hint)
    if resolved.scenario.plan.sites > 1:
        message, hint = "this question is about one site", "leave plan.sites out, and give the users of one"
        raise ScenarioError.one(message, path=resolved.path, key="plan.sites", hint=hint)
    return users


def _simulated(resolved: Resolved, nodes: int, users: int, on_trial: OnTrial) -> Run:
    trials = Trials(lambda number: with_sessions(with_nodes(resolved, number), users), on_trial)
    trials.replicate(nodes, resolved.scenario.replications)
    return trials.run(nodes)


def _document(resolved: Resolved, found: dict[str, Any], checked: Run) -> dict[str, Any]:
    """The answer, and ``simulated``: whether the SLO was kept, goodput and latencies."""
    summary = checked.summary
    return {
        "schema_version": SCHEMA_VERSION, "scenario": locked(resolved), "users": resolved.scenario.plan.users, **found,
        "simulated": {
            "passed": summary["slo"]["passed"], "goodput": summary["goodput"], "goodput_ci95": summary["goodput_ci95"],
            "latency": {name: summary[name] for name in LATENCIES}, "warnings": summary["warnings"],
        },
    }  # fmt: skip
