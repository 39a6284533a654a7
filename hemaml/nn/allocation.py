"""How a process holds memory and counts near zero, so that its time goes into the networks."""

import ctypes
import sys
from functools import cache

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
GIB = 1 << 30


@cache
def prepare_memory() -> None:
    """Makes this process keep freed memory for its next batch; once a process is enough.

    The C library gives large blocks back to the system when they are freed, so that each batch of
    activations is mapped and zeroed anew: a fifth of an epoch of a small network, most of the time
    of an embedding of large images. Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return
    mallopt(M_MMAP_THRESHOLD, GIB)
    mallopt(M_TRIM_THRESHOLD, 2 * GIB - 1)
    mallopt(M_TOP_PAD, GIB // 16)


def prepare_thread() -> None:
    """Prepares the memory, and makes this thread take numbers below 1e-38 for 0.

    Gradients of a network that has nearly learned its task fall there. A processor computes with
    them up to a hundred times slower, which doubled the time of an epoch; nothing is learned there.
    """
    prepare_memory()
    torch.set_flush_denormal(True)
