"""The parts of ``benchmarks/rounds.py``."""
