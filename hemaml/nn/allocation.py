"""The C library's allocator, set so that memory freed after a batch is there for the next one.

By default glibc maps every block of more than a few MiB anew and unmaps it when it is freed. The
activations of a batch are such blocks: each layer of each batch would have its pages zeroed by the
kernel again, which takes longer than small convolutions do.
"""

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt`'s parameters in glibc's malloc.h."""
LARGEST_KEPT = 1 << 30
"""Bytes of the largest block that is taken from memory freed before."""
NEVER_TRIM = (1 << 31) - 1
"""The highest number `mallopt` takes: freed bytes at the heap's end before it shrinks."""


@cache
def keep_freed_memory() -> bool:
    """Lets this process keep what it frees; works once, later calls change nothing.

    The process then holds its peak of memory to its end. Nothing changes on systems without glibc,
    in memory of a GPU, and in threads other than the main one, which have heaps of their own.

    Returns:
        Whether the allocator took both settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    set_option.argtypes, set_option.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    kept = bool(set_option(M_MMAP_THRESHOLD, LARGEST_KEPT))
    return kept and bool(set_option(M_TRIM_THRESHOLD, NEVER_TRIM))
