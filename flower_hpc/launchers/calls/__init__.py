"""Calls that travel to a process of another host and back, over TLS, where no disk is shared."""
