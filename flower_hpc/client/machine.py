"""What a node's machine has and how fast it is: cores, memory, NVIDIA GPUs, a matrix product.

What cannot be found out is left out: a profile is not worth a round.
"""

import functools
import os
import time
from typing import Any

import numpy as np

from ..cores import cores

Facts = dict[str, int | float | str]

GB = 1e9  # decimal, as on the labels: a GPU sold as 80 GB has at least 80
_NO_GPU: Facts = {"gpu-model": "", "gpus": 0, "gpu-mem-gb": 0.0}


def measure() -> Facts:
    """All of it, in less than a second.

    Returns
    -------
    dict
        ``cores`` (that this process may use), ``memory-gb``, ``free-memory-gb``, ``gpu-model`` ("" if none),
        ``gpus``, ``gpu-mem-gb`` (of the largest, 0 if none), ``gflops`` (float32 GFLOP/s on the cores). The
        memory is the machine's; limits of a container are not looked up.
    """
    return {"cores": cores(), **memory(), **gpus(), "gflops": gflops()}


def memory() -> Facts:
    """In total, and what could be had without swapping, in 1e9 bytes."""
    try:
        import psutil

        seen = psutil.virtual_memory()
    except Exception:  # psutil reads /proc, and raises whatever a strange one leads to
        return {}
    return {"memory-gb": seen.total / GB, "free-memory-gb": seen.available / GB}


def gpus() -> Facts:
    """NVIDIA's, those that ``CUDA_VISIBLE_DEVICES`` lets this process use."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return _NO_GPU  # no driver is an answer too
    except pynvml.NVMLError:
        return {}
    try:
        found = [
            (float(pynvml.nvmlDeviceGetMemoryInfo(gpu).total) / GB, str(pynvml.nvmlDeviceGetName(gpu)))
            for gpu in _visible(pynvml)
        ]
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()
    if not found:
        return _NO_GPU
    size, model = max(found)
    return {"gpu-model": model, "gpus": len(found), "gpu-mem-gb": size}


def _visible(nvml: Any) -> list[Any]:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    handles = []
    for entry in listed.split(","):
        by_index = entry.strip().isdigit()
        find = nvml.nvmlDeviceGetHandleByIndex if by_index else nvml.nvmlDeviceGetHandleByUUID
        try:
            handles.append(find(int(entry) if by_index else entry.strip()))
        except nvml.NVMLError:  # CUDA too ignores what follows an unknown one, as -1
            break
    return handles


@functools.cache
def gflops() -> float:
    """The best of a few float32 matrix products with NumPy, in 1e9 operations a second; once in a process.

    They grow until one takes 5 ms: a fast machine needs a large one to show its speed, and on a slow one
    the whole takes a fraction of a second.
    """
    best, size, took = 0.0, 64, 0.0
    while took < 0.005 and size < 2048:
        size *= 2
        x = np.full((size, size), 0.5, np.float32)
        out = np.empty_like(x)
        for _ in range(3):
            start = time.perf_counter()
            np.matmul(x, x, out=out)
            took = max(time.perf_counter() - start, 1e-9)
            best = max(best, 2 * size**3 / took / 1e9)
    return best
