"""What makes two trials the same trial."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hemaml.core.documents import canonical_json
from hemaml.core.search import Change
from hemaml.core.types import Frozen

COMPUTES = ("core", "data", "nn", "ops", "tasks", "objectives")
"""Packages whose code a trial's result depends on."""
MODULES = ("course", "job", "lockstep", "training", "trial")
"""Modules that train."""


def trial_key(
    *,
    objective: str,
    params: Frozen,
    data_digest: str,
    split_digest: str,
    seed: int,
    files_digest: str = "",
    changes: Sequence[Change] = (),
) -> str:
    """Hex key of a trial: equal keys give equal results on one kind of device.

    It depends on the objective and the code it runs, the parameters in force, the content of the
    data and of the files that the parameters name, the split, the seed and the changes on the way;
    never on workers, device, engine, names or folders.
    """
    identity = {
        "objective": objective,
        "code": code_digest(),
        "params": params.in_force(),
        "data": data_digest,
        "split": split_digest,
        "seed": seed,
        "files": files_digest,
        "changes": [[change.step, change.point] for change in changes],
    }
    return hashlib.blake2b(canonical_json(identity).encode(), digest_size=16).hexdigest()


@cache
def code_digest() -> str:
    """Hex digest of the sources that compute results.

    A result must not be reused after the code that gave it has changed.
    """
    root = Path(__file__).parents[1]
    hasher = hashlib.blake2b(digest_size=16)
    files = [path for package in COMPUTES for path in sorted((root / package).rglob("*.py"))]
    for path in [*files, *(root / f"{name}.py" for name in MODULES)]:
        hasher.update(str(path.relative_to(root)).encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()
