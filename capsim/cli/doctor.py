"""The verbs ``schema``, for editors, and ``doctor``, for who wonders what an installation can do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date

    from capsim.catalog import Catalog

CORE = ("simpy", "numpy", "pandas", "scipy", "pydantic", "pyarrow", "streamlit", "altair")
OPTIONAL = {
    "numba": "kernel benchmarks on a CPU", "torch": "kernel benchmarks", "triton": "kernel benchmarks on NVIDIA",
    "mlx": "kernel benchmarks on Apple", "distributed": "sweeps on a Dask cluster",
    "aiconfigurator-core": "capsim refit",
}  # fmt: skip


def schema() -> None:
    """Print the JSON Schema of a scenario file, for editors that complete and check as you type."""
    import json

    from capsim.scenario.spec import Scenario

    print(json.dumps(Scenario.model_json_schema(), indent=2))


def doctor() -> None:
    """Show versions, optional parts, cores, what calibrations rest on, and prices that are old."""
    from datetime import date

    from capsim.catalog import load_catalog
    from capsim.cli import tables

    facts = load_catalog([])
    blocks = [_versions(), _calibrations(facts), _prices(facts, date.today())]
    print("\n".join(tables.text(block) for block in blocks if len(block) > 1), end="")


def _versions() -> list[list[str]]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from capsim import __version__

    rows = [["part", "version", "for"], ["capsim", __version__, ""], ["Python", platform.python_version(), ""]]
    rows.append(["cores", str(os.cpu_count()), ""])
    for name in (*CORE, *OPTIONAL):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        rows.append([name, found, OPTIONAL.get(name, "")])
    return rows


def _calibrations(facts: "Catalog") -> list[list[str]]:
    """Of every device, under which engines its kernels were measured, and on what basis its coefficients stand."""
    from capsim.calibrations import is_shipped

    rows = [["device", "kernels measured under", "coefficients"]]
    for device in facts.devices:
        measured = [engine for engine in facts.engines if is_shipped(device, engine)]
        keys = [key for key in facts.calibrations if key.split("/")[0] == device]
        known = [f"{key.split('/')[1]} {facts.provenance['calibrations', key].basis}" for key in keys]
        rows.append([device, ", ".join(measured) or "none", ", ".join(known) or "none"])
    return rows


def _prices(facts: "Catalog", today: "date") -> list[list[str]]:
    """How old prices are."""
    from capsim.catalog.listing import PRICED
    from capsim.prices import is_stale

    rows = [["prices", "entries", "older than 180 days", "oldest", "newest"]]
    for kind in PRICED:
        found = [facts.provenance[kind, key] for key in getattr(facts, kind)]
        dates = sorted(str(fact.as_of) for fact in found)
        old = sum(is_stale(fact.as_of, today) for fact in found)
        rows.append([kind, str(len(found)), str(old), dates[0], dates[-1]])
    return rows
