"""The served stack, started as `make stack` does, for tests that share one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
from servers import needed_postgres

ROOT = Path(__file__).parents[1]
STACK = ROOT / "docker" / "stack.py"
LATE_S = 300
SMALL = ("params.epochs=1", "data.count=24", "data.size=64", "sweep.confirm_seeds=0")


class Stack:
    """Its servers, in a process of its own that a test ends.

    Args:
        folder: What the servers keep.
        options: Of the script.
        more: Environment of the servers, beside this process's.
    """

    def __init__(self, folder, *options, **more):
        self.folder, self.began = folder, time.time()
        self.log = folder.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(STACK), str(folder), *options], stdout=log, stderr=log,
                env={**os.environ, **more},
            )  # fmt: skip
        deadline = time.monotonic() + LATE_S
        while not re.search("--address|hemaml upgrade", told := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < deadline, told
            time.sleep(0.2)
        if (found := re.search(r"--address (\S+)", told)) is not None:
            self.address = found[1]

    @property
    def environment(self):
        lines = (self.folder / "admin.env").read_text().splitlines()
        told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW_", "RAY_"))}
        return {**kept, **told}

    def run(self, *command, typed=None, **changes):
        """A command of hemaml; of the changes to its environment, None unsets."""
        changed = {**self.environment, **changes}
        return subprocess.run(
            [sys.executable, "-m", "hemaml.cli", *command],
            env={name: value for name, value in changed.items() if value is not None},
            capture_output=True, text=True, timeout=LATE_S, input=typed,
        )  # fmt: skip

    def kill(self, name):
        """Ends a server and its children at once, as a crash would; the stack starts it again."""
        program = "postgres" if name == "database" else f"{name}.sh"
        for child in psutil.Process(self.process.pid).children():
            if any(program in word for word in child.cmdline()):
                os.killpg(child.pid, signal.SIGKILL)
                return
        raise AssertionError(f"no {program} below the stack")

    def told(self):
        """What the stack and each of its servers said last, for a test that fails."""
        logs = [self.log, *sorted(self.folder.glob("*.log"))]
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=LATE_S)


def commands():
    """Command lines of all running processes, by their file below /proc."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path, path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def processes_of(*words):
    """Command lines of running processes that name the folder, or the port of Ray."""
    return [command for _, command in commands() if any(word in command for word in words)]


@contextmanager
def stack_folder():
    """A folder that PostgreSQL's user can reach, which pytest's own do not let it."""
    needed_postgres()
    folder = Path(tempfile.mkdtemp(prefix="hemaml-stack-", dir="/tmp"))  # noqa: S108
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


@contextmanager
def running_stack(**more):
    """A stack that runs for as long as the tests of a module."""
    with stack_folder() as folder:
        stack = Stack(folder, **more)
        try:
            yield stack
        finally:
            stack.end()
