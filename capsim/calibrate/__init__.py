"""From measurements to a calibration: tables, fits, and how far each is off."""

from capsim.calibrate.document import Calibration, calibrate
from capsim.calibrate.held_out import HeldOut, held_out

__all__ = ["Calibration", "HeldOut", "calibrate", "held_out"]
