"""Pictures of fitted models, by name: `overlay` is `hemaml/explain/overlay.py`.

A module of this package that pictures a model has a function `draw(model, data) -> list[Picture]`;
there is no registry. A task names the ones that suit its models.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
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


def pictures(names: Sequence[str], model: Model, data: Dataset) -> list[Picture]:
    """What the named modules draw of a model on a labelled data set, in order.

    Raises:
        UnknownName: No module of that name.
    """
    known = [path.stem for path in Path(__file__).parent.glob("[!_]*.py")]
    for name in names:
        if name not in known:
            raise UnknownName("figure", name, known)
    return [
        picture
        for name in names
        for picture in importlib.import_module(f"hemaml.explain.{name}").draw(model, data)
    ]
