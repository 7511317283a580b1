"""Calibrations that ship: kernel tables of one device under one engine each, thinned, as ``capsim refit`` wrote them.

A file ``fitted/<device>_<engine>.txt`` has a head in YAML (source, licence, date, errors, domain) and, behind a line
``---``, the tables as text.
"""

from capsim.calibrations.shipped import FOLDER, Judged, Shipped, is_shipped, read_shipped, shipped, write_shipped

__all__ = ["FOLDER", "Judged", "Shipped", "is_shipped", "read_shipped", "shipped", "write_shipped"]
