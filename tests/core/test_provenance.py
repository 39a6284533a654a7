"""Which process works on a run, told apart from one that has ended."""

import subprocess
import sys

import psutil
import pytest

from hemaml.core.provenance import is_gone, this_process

NAMED = (
    "from hemaml.core.provenance import this_process; print(this_process(), flush=True); input()"
)


@pytest.fixture
def other():
    """Another process, and what it calls itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_process_that_lives_is_not_gone_even_when_the_clock_is_set(other, monkeypatch):
    _, name = other
    assert not is_gone(name) and not is_gone(this_process())
    later = psutil.boot_time() + 1  # as the kernel tells it after a correction by a second
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: later)
    assert not is_gone(name)


def test_a_killed_process_is_gone_even_before_its_parent_looks(other):
    process, name = other
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert is_gone(name)
    process.wait()
    assert is_gone(name)


def test_of_another_host_nothing_is_known_and_another_of_the_same_number_is_not_the_same():
    host, number, born = this_process().rsplit(" ", 2)
    assert not is_gone(f"not-{host} {number} {born}")
    assert is_gone(f"{host} {number} {float(born) + 1:.2f}")
