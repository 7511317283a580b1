"""The verb ``stack``, and its document as text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from capsim.cli.options import Format, NoProgress, Out, OutputFormat, Quiet, Replications, Seed, Set, progress

StackFile = Annotated[Path, typer.Argument(metavar="STACK", help="Stack YAML file: a scenario, and levers to pull.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="The closed form alone: seconds instead of minutes.")]
Order = Annotated[
    str | None, typer.Option(metavar="NAME,NAME,...", help="Pull the levers in this order; default: the file's.")
]


def stack(
    file: StackFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    estimate: Estimate = False,
    order: Order = None,
    out: Out = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Pull levers on the cost of a token: each alone, one after the other, all together, and averaged over orders."""
    from capsim.json_text import to_json
    from capsim.levers import load_stack
    from capsim.levers import stack as pull
    from capsim.progress import ProgressFile
    from capsim.whole_file import write_whole

    options = {"seed": seed, "replications": replications}
    settings = [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    names = None if order is None else [name.strip() for name in order.split(",")]
    spec, watched = load_stack(file), ProgressFile(out)
    with progress("pulling levers", quiet or no_progress) as tell:

        def on_step(done: int, total: int, what: str) -> None:
            tell(f"{done} of {total}, {what}")
            watched.tell(done, total, message=what)

        try:
            document = pull(spec, settings, estimate=estimate, order=names, on_step=on_step)
        except BaseException as error:
            watched.tell(0, None, state="interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
    if out is not None:
        write_whole(out / "stack.json", [to_json(document)])
        watched.tell(1, 1, state="done")
    print(render(document, format_), end="")


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.levers.stack`` in one of the four formats."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return tables.csv_text({key: value for key, value in document.items() if key != "scenario"})
    return tables.document_text(blocks(document), lines(document), format_)


def blocks(document: dict[str, Any]) -> list[list[list[str]]]:
    """The document as tables: what is pulled on what, every step, every lever."""
    from capsim.cli import tables

    return [
        [*tables.what_rows(document), ["Load", f"{document['users']:,} users at every step, {document['how']}"]],
        _step_rows(document), _lever_rows(document),
    ]  # fmt: skip


def lines(document: dict[str, Any]) -> list[str]:
    """What a reader should know, and the lines that a planner quotes."""
    from capsim.cli import tables

    return [*tables.notes(_notes(document)), *_quotable(document)]


def _step_rows(document: dict[str, Any]) -> list[list[str]]:
    rows = [["Levers pulled", "model", "node", "sessions a node", "nodes", "a month", "$/M tokens", "gain", "binds"]]
    rows.append(_step("baseline", document["base"]))
    rows += [_step(f"{row['pulled'][0]} alone", row) for row in document["alone"]]
    rows += [_step(f"+ {row['pulled'][-1]}", row) for row in document["cumulative"]]
    return rows


def _step(title: str, row: dict[str, Any]) -> list[str]:
    from capsim import units

    if row.get("infeasible"):
        return [title, *[""] * 6, f"{row['gain']:.3g}x" if row["levers"] else "", "left off: see below"]
    low, high = row["sessions"]
    return [
        title, row["model"], f"{row['node']} {row['parallelism']}",
        f"{low:,}" if high is None else f"{low:,} to {high:,}",
        f"{row['nodes']:,}", units.usd(row["monthly_usd"]), f"{row['usd_per_million_tokens']:.3g}",
        f"{row['gain']:.3g}x", row["binds"],
    ]  # fmt: skip


def _lever_rows(document: dict[str, Any]) -> list[list[str]]:
    """What each lever gains by its place, and whatever its place."""
    average = document["shapley"]
    rows = [["Lever", "alone", "in this order", f"averaged over orders ({average['how']})", "share of the joint gain"]]
    before = 1.0
    for alone, after, each in zip(document["alone"], document["cumulative"], average["levers"], strict=True):
        in_order, before = after["gain"] / before, after["gain"]
        share = "" if each["share"] is None else f"{each['share']:.1%}"
        by_itself = "" if alone["infeasible"] else f"{alone['gain']:.3g}x"
        rows.append([each["name"], by_itself, f"{in_order:.3g}x", f"{each['gain']:.3g}x", share])
    return [
        *rows,
        ["product", f"{document['product']:.3g}x", f"{before:.3g}x", f"{average['joint_gain']:.3g}x", "100%"],
    ]


def _notes(document: dict[str, Any]) -> list[str]:
    blocked = [
        f"cannot be: {' + '.join(each['levers'])}{_more(each['sets'])}: {each['reason']}"
        for each in document["infeasible"]
    ]
    rule = ["a set of levers that cannot be is worth the best set that can be of its levers"] if blocked else []
    return [*document["warnings"], *blocked, *rule]


def _more(sets: int) -> str:
    return "" if sets == 1 else f" and {sets - 1} more sets"


def _quotable(document: dict[str, Any]) -> list[str]:
    joint, claimed = document["joint"], document["claimed_gain"]
    runs = joint["gain_bracket"]
    spread = "" if runs is None else f"{runs[0]:.3g}x to {runs[1]:.3g}x run to run; "
    low, high = joint["gain_with_model_error"]
    ends = f"{'0' if low is None else f'{low:.3g}x'} to {'any' if high is None else f'{high:.3g}x'}"
    pulled = " + ".join(joint["levers"]) or "nothing"
    return [
        f"joint gain {joint['gain']:.3g}x ({spread}{ends} with model error): {pulled}",
        f"product of the single gains {document['product']:.3g}x, interaction {document['interaction']:.3g}x",
        *([] if claimed is None else [f"claimed {claimed:g}x, {claimed / joint['gain']:.3g} times the joint gain"]),
    ]
