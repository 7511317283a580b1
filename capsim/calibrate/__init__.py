"""From measurements to a calibration: tables, fits, and how far each is off."""

from capsim.calibrate.document import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
