"""Clients that sleep in place of training."""
