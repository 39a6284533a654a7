"""Readers of data sets, found by walking this folder: there is no registry to keep.

A reader is a module of this package that assigns `reader = Reader(...)` at its top level. Its name
is the module's name, and it is what `reader:` in the `data:` section of an experiment says; the
other keys of the section are the fields of the reader's `spec`.
"""

import ast
import importlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hemaml.core.dataset import Dataset
from hemaml.core.documents import validated
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.settings import data_root
from hemaml.core.types import Frozen
from hemaml.data.problems import Problem


@dataclass(frozen=True, slots=True)
class Reader:
    """How one layout of files, or one generator, becomes a `Dataset`.

    Attributes:
        spec: Frozen pydantic class; its fields are the keys of the `data:` section.
        read: A spec to the data set, items in order of their ids. Raises `DataError`.
        verify: A spec to all that is wrong; names every bad file instead of stopping at the first.
    """

    spec: type[Frozen]
    read: Callable[[Any], Dataset]
    verify: Callable[[Any], list[Problem]]


@cache
def reader_names() -> tuple[str, ...]:
    """Names of all readers, sorted. Reads source files, imports none (some need torch)."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if _has_reader(p)))


def load_reader(name: str) -> Reader:
    """The reader at `hemaml/data/<name>.py`.

    Raises:
        UnknownName: No such reader.
    """
    if name not in reader_names():
        raise UnknownName("reader", name, reader_names(), hint="Set `data.reader` to one of them.")
    reader = importlib.import_module(f"hemaml.data.{name}").reader
    assert isinstance(reader, Reader)
    return reader


def read_dataset(section: Mapping[str, object]) -> Dataset:
    """The data set that the `data:` section of an experiment describes.

    Args:
        section: `reader` and the fields of that reader's spec.

    Raises:
        UnknownName: `reader` stands for nothing.
        ConfigError: `reader` is absent, or a key or value is wrong; the message has its path.
        DataError: A file is missing, damaged or inconsistent.
    """
    reader, spec = _resolve(section)
    return reader.read(spec)


def verify_dataset(section: Mapping[str, object]) -> list[Problem]:
    """All that is wrong with a data set: errors by file, then images that occur twice.

    Images are compared once every file reads. A repeated image is a warning where splits keep its
    copies in one part (`hemaml.data.splits`), and an error where they lie in two official parts.

    Args:
        section: As for `read_dataset`.

    Raises:
        UnknownName: `reader` stands for nothing.
        ConfigError: A key or value of the section is wrong.
        DataError: The data set as a whole is not there.
    """
    reader, spec = _resolve(section)
    problems = reader.verify(spec)
    if any(problem.severity == "error" for problem in problems):
        return problems
    return problems + _repeated_images(reader.read(spec))


def dataset_root(root: Path | None, *, default: str) -> Path:
    """The folder of a data set: `root` where absolute, else below `HEMAML_DATA`.

    Args:
        root: The `root:` of the section, or None for `default`.
        default: Folder below `HEMAML_DATA`, by the data set's public name.

    Raises:
        ConfigError: `HEMAML_DATA` is needed but unset, or there is no such folder.
    """
    path = (root or Path(default)).expanduser()
    path = path if path.is_absolute() else data_root() / path
    if not path.is_dir():
        raise ConfigError(
            f"data.root: must name the folder of the data set, but {str(path)!r} is none. "
            "Put the data there (`hemaml data import`), or set `root:` or HEMAML_DATA."
        )
    return path


def _has_reader(path: Path) -> bool:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "reader" for target in targets):
            return True
    return False


def _resolve(section: Mapping[str, object]) -> tuple[Reader, Frozen]:
    if "reader" not in section:
        raise ConfigError(
            f"data.reader: must name a reader, but the section has only {sorted(section)}. "
            f"Set it to one of: {', '.join(reader_names())}."
        )
    reader = load_reader(str(section["reader"]))
    values = {key: value for key, value in section.items() if key != "reader"}
    return reader, validated(reader.spec, values, "data")


def _repeated_images(dataset: Dataset) -> list[Problem]:
    copies: dict[str, list[int]] = defaultdict(list)
    for item, digest in enumerate(dataset.contents()):
        copies[digest].append(item)
    return [_repeated(dataset, items) for items in copies.values() if len(items) > 1]


def _repeated(dataset: Dataset, items: list[int]) -> Problem:
    first, *others = (dataset.ids[item] for item in items)
    parts = sorted({dataset.parts[item] for item in items}) if dataset.parts else []
    if len(parts) > 1:
        found = f"the same image is {', '.join(others)}; they lie in {', '.join(parts)}"
        return Problem(first, "copies of an image must lie in one official part", found)
    found = f"the same image is {', '.join(others)}; splits keep them together"
    return Problem(first, "each image should occur once", found, severity="warning")
