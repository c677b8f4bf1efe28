"""Tests against a real Slurm, brought up on this machine."""
