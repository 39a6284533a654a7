"""A sweep of the stub in a process of its own, and what it has said."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from servers import ADMIN_PASSWORD, PASSWORD

from hemaml.tracking.outages import RETRIES

SCRIPT = Path(__file__).parent / "server_sweep.py"
LATE_S = 200


class Sweep:
    """A sweep in a process of its own, and what it has said."""

    def __init__(self, process):
        self.process = process
        self.lines = []

    def read_until(self, wanted, *, times=1):
        found = 0
        while found < times:
            line = self.process.stdout.readline()
            assert line, f"ended early: {self.lines} {self.process.stderr.read()}"
            self.lines.append(line.strip())
            found += line.startswith(wanted)
        return self.lines[-1]

    def end(self):
        out, err = self.process.communicate(timeout=LATE_S)
        told = "\n".join([*self.lines, out, err])
        assert PASSWORD not in told and ADMIN_PASSWORD not in told
        return self.process.returncode, told


@contextmanager
def sweep_of(engine, *more):
    # Retries follow from how long is to be waited, which this process has settled for itself.
    environment = {name: value for name, value in os.environ.items() if name != RETRIES}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), engine, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    with process:
        try:
            yield Sweep(process)
        finally:
            process.kill()
