"""What code, which packages, whose and which process made a result."""

import getpass
import os
import platform
import socket
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "hemaml", "mlflow", "numba", "numpy", "optuna", "ray", "scikit-image", "scikit-learn", "torch",
    "torch-geometric", "torchvision",
)  # fmt: skip


SOURCE = "mlflow.source.name"


def environment() -> dict[str, str]:
    """Versions of Python, the platform and the packages that results depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def git_state() -> dict[str, str]:
    """Commit and dirtiness of the folder that hemaml runs in; empty outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"mlflow.source.git.commit": commit, "git.dirty": str(dirty).lower()}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path.cwd(), capture_output=True, text=True, timeout=10,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def origin(task: str, experiment: object) -> dict[str, str]:
    """Who made a run, and of which file, for the columns User and Source of the MLflow UI."""
    made = {"mlflow.user": this_user().partition("@")[0]}
    if not experiment:
        return made
    return {**made, SOURCE: f"experiments/{task}/{experiment}.yaml", "mlflow.source.type": "LOCAL"}


def this_user() -> str:
    """Who does this, as `name@host`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry for the user id, as in some containers
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def this_process() -> str:
    """Names this process among all of its host: host, number and birth, in seconds after boot."""
    return _process(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process of this host, as `this_process` named it, has ended.

    False for one of another host: nothing can be said of it from here.
    """
    host, number, _ = process.rsplit(" ", 2)
    return host == socket.gethostname() and _process(int(number)) != process


def _process(number: int) -> str:
    import psutil

    born = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        if process.status() != psutil.STATUS_ZOMBIE:  # killed, and its parent has not looked yet
            # The moment itself would move whenever the system's clock is set.
            born = process.create_time() - psutil.boot_time()
    return f"{socket.gethostname()} {number} {born:.2f}"
