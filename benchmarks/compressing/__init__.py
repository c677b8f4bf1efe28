"""The parts of ``benchmarks/compression.py``."""
