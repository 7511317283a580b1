"""From measurements to a calibration: fits, tables, and how far each is off."""
