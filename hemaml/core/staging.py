"""A folder that appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same disk so that a rename is atomic; gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    folder.chmod(0o755)  # mkdtemp's 0700 would hide what is in it from everybody else
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
