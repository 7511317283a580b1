"""Kernel and engine benchmarks that feed capsim's calibration."""

__version__ = "0.1.0"
