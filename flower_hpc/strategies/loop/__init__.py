"""The round loop, step by step; strategies and policies do not reach into it, except ``hybrid.py``."""
