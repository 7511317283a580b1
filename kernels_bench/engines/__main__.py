"""``python -m kernels_bench.engines``."""

import typer

from kernels_bench.engines.cli import engine

typer.run(engine)
