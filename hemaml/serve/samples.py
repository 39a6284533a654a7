"""Images that hemaml draws, to try the page with: they say nothing about real blood."""

import io
from functools import cache

from PIL import Image

from hemaml.core.errors import UnknownName
from hemaml.data.cells import CELL_TYPES
from hemaml.data.smears import CYCLE, Smears, draw_smear
from hemaml.serve.answers import Sample, Samples

SMEARS = Smears(count=len(CELL_TYPES), size=224, seed=7)
PATH = "/api/v1/samples"


def _names() -> dict[str, int]:
    """The first image of each type of cell, by the type's name."""
    return {name: CYCLE.index(index) for index, name in enumerate(CELL_TYPES)}


def samples() -> Samples:
    """What there is."""
    text = "A {} that hemaml drew: no real blood."
    found = [
        Sample(name=name, url=f"{PATH}/{name}.png", text=text.format(name)) for name in _names()
    ]
    return Samples(samples=found)


@cache
def sample(name: str) -> bytes:
    """The PNG of a sample. Raises `UnknownName`."""
    if name not in _names():
        raise UnknownName("sample", name, _names())
    image, _ = draw_smear(SMEARS, _names()[name])
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
