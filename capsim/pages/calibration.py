"""How far step times may be trusted: errors where nothing was fitted, what was measured, and one's own measurements."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
import yaml

from capsim.calibrate import calibrate
from capsim.calibrate.evidence import coverage, points, visited
from capsim.calibrations.shipped import FOLDER, Shipped, shipped
from capsim.charts import calibration as charts
from capsim.cli.calibrate import residual_rows
from capsim.errors import ScenarioError
from capsim.kernel_tables import KernelTable
from capsim.pages.parts import runs
from capsim.pages.parts.details import chart, table
from capsim.pages.parts.refusal import mistaken

MEASURE = """python -m kernels_bench --budget 10m --out kernels.jsonl
capsim calibrate kernels.jsonl --out calibration.yaml"""


def page() -> None:
    there = sorted(path.stem for path in FOLDER.glob("*.txt"))
    name = st.selectbox("Device and engine", there, key="calibration", bind="query-params")
    device, _, engine = name.partition("_")
    one(shipped(device, engine))
    own()


def one(calibration: Shipped) -> None:
    st.subheader(f"{calibration.device} under {calibration.engine}", anchor=False)
    st.caption(f"{calibration.source}, {calibration.licence}, as of {calibration.as_of}; {calibration.rows:,} rows")
    st.markdown("**How far tables are off at what was held out**")
    held_out = [
        [judged.op, judged.format, judged.by, judged.held_out, f"{judged.shapes:,}", f"{judged.points:,}",
         f"{judged.median:.1%}", f"{judged.p90:.1%}"]
        for judged in calibration.held_out
    ]  # fmt: skip
    table([["operation", "format", "by", "held out", "shapes", "points", "median error", "p90"], *held_out])
    covered(calibration.tables, "of-shipped")
    with st.expander("What was measured, from and to"):
        sizes = [[op, axis, f"{low:,.4g}", f"{high:,.4g}"]
                 for op, axes in calibration.domain.items() for axis, (low, high) in axes.items()]  # fmt: skip
        table([["operation", "size", "from", "to"], *sizes])
        table([[f"{count:,} rows left out", why] for why, count in calibration.left_out.items()])


def covered(tables: Sequence[KernelTable], key: str) -> None:
    """Where decode attention was measured, and where the steps of a run that one chooses lie against it."""
    cells = coverage(tables)
    if cells.empty:
        return
    name, steps = None, None
    if kept := runs.finished():
        hint = "Choose a run: rings show where its steps lie"
        name = st.selectbox("A run beside it", kept, None, runs.title, key=f"run-{key}", placeholder=hint)
    if name:
        steps = visited(runs.read(name).segments())
    chart(charts.coverage(cells, steps), f"coverage-{key}", 420)


def own() -> None:
    """Measurements of one's own: their fit, and a calibration to take along."""
    st.subheader("Measurements of your own", anchor=False)
    file = st.file_uploader("Measurements file (JSON Lines)", ["jsonl"], key="measurements", max_upload_size=2)
    if file is None:
        st.caption("On the machine to measure, in ten minutes:")
        st.code(MEASURE, language="bash")
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "kernels.jsonl"
            place.write_bytes(file.getvalue())
            found, judged = calibrate([place]), points(place)
    except ScenarioError as error:
        mistaken(error)
        return
    if len(judged):
        chart(charts.measured_and_predicted(judged), "judged", 460)
    covered(found.tables, "of-own")
    table(residual_rows(found.residuals))
    text = yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True)
    st.download_button("calibration.yaml", text, "calibration.yaml", "application/yaml", on_click="ignore")
    st.code("capsim plan scenario.yaml --calibration calibration.yaml", language="bash")


page()
