"""Freed memory stays with the process, measured by the pages that the kernel had to give."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from hemaml.nn.allocation import keep_freed_memory
if "kept" in sys.argv:
    assert keep_freed_memory() and keep_freed_memory()
def use(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(64 << 18)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
use(20)  # what alignment cuts off lies between the first blocks
print(use(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_freed_block_is_used_again():
    def faults(*arguments):
        command = [sys.executable, "-c", CODE, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 100
    assert faults() > 5 * 32  # as many as there are pages of 2 MiB, if they are large


def test_elsewhere_nothing_happens(monkeypatch):
    from hemaml.nn import allocation

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)
    assert allocation.keep_freed_memory.__wrapped__() is False
