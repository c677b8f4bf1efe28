"""One client on several GPUs."""
