"""Kernel and engine benchmarks that feed capsim's calibration."""
