"""Many scenarios at once: a grid or a list of settings, resumable, on processes here or on a cluster."""

from capsim.sweep.run import FAILED, Ended, run_sweep
from capsim.sweep.spec import Point, Sweep, load_sweep

__all__ = ["FAILED", "Ended", "Point", "Sweep", "load_sweep", "run_sweep"]
