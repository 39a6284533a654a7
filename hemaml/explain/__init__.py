"""Pictures of fitted models, by name: `overlay` is `hemaml/explain/overlay.py`.

A module of this package that pictures a model has a function `draw(model, data) -> list[Picture]`;
there is no registry. A task names the ones that suit its models. Plotting libraries are imported
where a figure is drawn, so that importing a module of this package stays cheap.
"""

import ast
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if _has_draw(p)))


def pictures(names: Sequence[str], model: Model, data: Dataset) -> list[Picture]:
    """What the named modules draw of a model on a labelled data set, in order.

    Raises:
        UnknownName: No module of that name pictures a model; nothing is drawn.
        DataError: The data is empty or lacks what a figure compares with.
    """
    for name in names:
        if name not in figure_names():
            raise UnknownName("figure", name, figure_names())
    return [
        picture
        for name in names
        for picture in importlib.import_module(f"hemaml.explain.{name}").draw(model, data)
    ]


def _has_draw(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "draw" for node in body)
