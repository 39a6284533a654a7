"""Pictures of fitted models, by name: `overlay` is `hemaml/explain/overlay.py`.

A module of this package that pictures a model has a function `draw(model, data) -> list[Picture]`;
there is no registry. A task names the ones that suit its models. One that can say in numbers how
far its picture is to be believed has a function `measure(model, data, device) -> dict[str, float]`
beside it. Plotting libraries are imported where a figure is drawn, so that importing a module of
this package stays cheap.
"""

import ast
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hemaml.core.dataset import Dataset
from hemaml.core.errors import UnknownName
from hemaml.core.objective import Model


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure.

    Attributes:
        name: Stem of its file names.
        png: Content of a PNG file, or None.
        html: A page that needs no network, or None.
    """

    name: str
    png: bytes | None = None
    html: str | None = None


@cache
def figure_names() -> tuple[str, ...]:
    """Names of the modules that picture a model, sorted. Reads source files, imports none."""
    return _modules_with("draw")


def pictures(names: Sequence[str], model: Model, data: Dataset) -> list[Picture]:
    """What the named modules draw of a model on a labelled data set, in order.

    Raises:
        UnknownName: No module of that name pictures a model; nothing is drawn.
        DataError: The data is empty or lacks what a figure compares with.
    """
    _check(names)
    return [picture for name in names for picture in _module(name).draw(model, data)]


def measurements(
    names: Sequence[str], model: Model, data: Dataset, device: str = "cpu"
) -> dict[str, float]:
    """What those of the named modules that measure their pictures say of a model, by metric.

    Args:
        names: Of modules.
        model: May be moved to the device.
        data: Images with labels.
        device: Where they are computed.

    Raises:
        UnknownName: No module of that name pictures a model; nothing is measured.
        DataError: The data is empty or lacks what a figure compares with.
    """
    _check(names)
    measuring = [_module(name) for name in names if name in _modules_with("measure")]
    found = [module.measure(model, data, device) for module in measuring]
    return {name: value for scores in found for name, value in scores.items()}


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name not in figure_names():
            raise UnknownName("figure", name, figure_names())


def _module(name: str) -> Any:
    return importlib.import_module(f"hemaml.explain.{name}")


@cache
def _modules_with(function: str) -> tuple[str, ...]:
    found = (p.stem for p in Path(__file__).parent.glob("*.py") if _defines(p, function))
    return tuple(sorted(found))


def _defines(path: Path, function: str) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)
