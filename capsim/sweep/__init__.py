"""Many scenarios of one: a grid or a list over any of its paths, run on processes or a cluster, resumable."""

from capsim.sweep.executors import cluster
from capsim.sweep.run import run_sweep
from capsim.sweep.spec import Sweep, load_sweep
from capsim.sweep.table import TABLE, keys_of, read_points

__all__ = ["TABLE", "Sweep", "cluster", "keys_of", "load_sweep", "read_points", "run_sweep"]
