"""Measured kernels: the least that each must do, what it took at some sizes, and so at the others."""

from capsim.kernel_tables.surface import Polyline, Surface
from capsim.kernel_tables.table import AXES, Curve, KernelTable, SumRoofline
from capsim.kernel_tables.work import Work, ideal_s, work

__all__ = ["AXES", "Curve", "KernelTable", "Polyline", "SumRoofline", "Surface", "Work", "ideal_s", "work"]
