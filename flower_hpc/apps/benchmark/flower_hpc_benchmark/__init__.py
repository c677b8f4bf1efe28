"""A thin Flower App over ``flower_hpc.tasks``."""
