"""Clients that send back what they get."""
