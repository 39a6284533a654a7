"""Pictures of a model and of data: PNG for previews, HTML that works offline.

A figure is a module of this package with a function `draw(model, data) -> list[Picture]`; its name
is the module's name, so there is no registry to keep. Plotting libraries are imported where a
figure is drawn: importing a module of this package stays cheap.
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
    """One figure, as it is stored.

    Attributes:
        name: File name without suffix.
        png: The figure as a still, or None.
        html: The figure as a page that needs no network, or None.
    """

    name: str
    png: bytes | None = None
    html: str | None = None


@cache
def figure_names() -> tuple[str, ...]:
    """Names of all figures, sorted. Reads source files, imports none."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if _has_draw(p)))


def pictures(names: Sequence[str], model: Model, data: Dataset) -> list[Picture]:
    """The figures at `hemaml/explain/<name>.py` of a model's predictions, in the order of `names`.

    Args:
        names: Figures, such as a task's `figures`.
        model: A fitted model; each figure calls its `predict`.
        data: Labelled images that the model is shown.

    Raises:
        UnknownName: A name is no figure; nothing is drawn.
        DataError: The data is empty or lacks the targets that a figure compares with.
    """
    for name in names:
        if name not in figure_names():
            raise UnknownName("figure", name, figure_names())
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [picture for module in modules for picture in module.draw(model, data)]


def _has_draw(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "draw" for node in body)
