"""A Ray cluster that a sweep is to use: whether all its nodes would do the same work."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from hemaml.core import settings
from hemaml.core.errors import HemamlError
from hemaml.core.experiment import Plan
from hemaml.core.provenance import environment
from hemaml.engines.optuna_study import open_storage
from hemaml.engines.ray_cluster import connected, on_each_node, store_environment
from hemaml.tracking.mlflow_tracker import MlflowTracker

SAME = ("hemaml", "python", "packages", "data")
"""What must be the same on all nodes."""
Found = Mapping[str, tuple[Literal["ok", "wrong"], str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined on one node."""

    node: str
    what: str
    state: Literal["ok", "wrong"]
    found: str


def examine_cluster(plan: Plan, address: str | None) -> list[Finding]:
    """What each node has, and whether it is what this process has.

    Args:
        plan: An experiment whose data every node must see.
        address: Of the cluster; this machine alone by default.

    Raises:
        StoreError: No cluster answers at the address.
        ConfigError: It need not be asked with a token, though other machines can reach it.
    """
    look = partial(_look, plan, settings.tracking_uri(), settings.study_storage())
    here = look({})
    sweep = plan.experiment.sweep.model_copy(update={"address": address, "workers": 1})
    with connected(sweep):
        answers = on_each_node(partial(look, store_environment()))
    findings = []
    for node, answer in answers:
        if not isinstance(answer, Mapping):
            findings.append(Finding(node, "node", "wrong", str(answer).strip().splitlines()[-1]))
            continue
        for what, (state, found) in answer.items():
            if what in SAME and found != here[what][1]:
                state, found = "wrong", f"{found}, but here it is {here[what][1]}"
            findings.append(Finding(node, what, state, found))
    return findings


def _look(plan: Plan, tracking_uri: str, study_storage: str, variables: Mapping[str, str]) -> Found:
    """What the process that calls it has; on the nodes, called by Ray."""
    os.environ.update(variables)
    return {
        "hemaml": ("ok", f"{environment()['hemaml']}, code {_code_digest()}"),
        "python": ("ok", platform.python_version()),
        "packages": ("ok", _packages()),
        "data": _try(lambda: plan.objective.task.read(plan.experiment.data).digest),
        "tracking store": _try(lambda: _tracking(tracking_uri, plan.experiment.task)),
        "study storage": _try(lambda: _studies(study_storage)),
        "GPUs": ("ok", _gpus()),
        "cache": _try(lambda: _writable(settings.cache_root())),
    }


def _try(look: Callable[[], str]) -> tuple[Literal["ok", "wrong"], str]:
    try:
        return "ok", look()
    except (HemamlError, OSError) as error:
        return "wrong", str(error)


def _code_digest() -> str:
    """Of hemaml's own files: a version alone does not tell what an editable install has."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _packages() -> str:
    known = environment()
    return ", ".join(f"{name} {known[name]}" for name in ("torch", "optuna", "ray", "mlflow"))


def _tracking(uri: str, task: str) -> str:
    return f"{len(MlflowTracker(uri, task).find({'kind': 'sweep'}))} sweeps"


def _studies(location: str) -> str:
    return f"{len(open_storage(location).get_all_studies())} studies"


def _gpus() -> str:
    """As the driver lists them: Ray hides them from what has not asked for one."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return ", ".join(line.partition(" (UUID")[0] for line in told.stdout.splitlines())


def _writable(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(b"x")
    return str(folder)
