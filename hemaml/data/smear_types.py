"""Reader of generated cells with their types: synthetic data for classifiers.

The images are those of `hemaml.data.smears`, and their masks an input, `Dataset.drawn`. Images of
one synthetic patient share stain, light and focus, and patients differ in them, so a split that
parts a patient is easier than one that does not, as with real blood. Figures reached on them say
nothing of real blood.
"""

from collections.abc import Callable
from itertools import count, islice
from typing import Literal

from pydantic import Field

from hemaml.core.cache import array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.types import Frozen
from hemaml.data.cells import CELL_TYPES
from hemaml.data.labelled_images import labelled_digest
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader
from hemaml.data.smears import CYCLE, Smears, draw_smear

BINARY = ("granulocyte", "mononuclear")
THREE = ("granulocyte", "lymphocyte", "monocyte")
MONONUCLEAR = tuple(CELL_TYPES.index(name) for name in ("lymphocyte", "monocyte"))


class SmearTypes(Frozen):
    """The `data:` section of this reader.

    A larger `patients` extends the set.
    """

    classes: Literal["types", "three", "binary"] = Field(
        default="types",
        description="types: five, all in each patient; three: granulocytes, lymphocytes and "
        "monocytes, likewise; binary: lymphocytes and monocytes (1) "
        "against granulocytes (0), and each patient has cells of one class, as in C-NMC.",
    )
    patients: int = Field(default=12, ge=1, description="Number of synthetic patients.")
    per_patient: int = Field(default=10, ge=1, description="Images of each.")
    size: int = Field(default=64, ge=32, le=2048, description="Side in pixels; cells scale along.")
    seed: int = Field(default=0, description="Another seed is another set.")
    noise: float = Field(default=1.0, ge=0, le=10, description="Sensor noise; 1 is a fair camera.")


def read(spec: SmearTypes) -> Dataset:
    """The generated set; groups are synthetic patients."""
    cells = [cell for patient in range(spec.patients) for cell in _cells(spec, patient)]
    smears = _smears(spec)
    images, masks = zip(*(draw_smear(smears, cell) for cell in cells), strict=True)
    kinds = [CYCLE[cell % len(CYCLE)] for cell in cells]
    classes, label_of = _target(spec)
    labels = tuple(label_of(kind) for kind in kinds)
    digests = tuple(array_digest(image) for image in images)
    patients = [patient for patient in range(spec.patients) for _ in range(spec.per_patient)]
    return Dataset(
        name=f"smear_types-{spec.classes}",
        classes=classes,
        ids=tuple(
            f"{patient:04d}-{i % spec.per_patient:04d}" for i, patient in enumerate(patients)
        ),
        images=images,
        labels=labels,
        groups=tuple(f"patient-{patient:04d}" for patient in patients),
        digests=tuple(labelled_digest(d, label) for d, label in zip(digests, labels, strict=True)),
        drawn=masks,
        image_digests=digests,
        source=f"generated (synthetic) cells, {spec.model_dump_json()}",
    )


def verify(spec: SmearTypes) -> list[Problem]:
    """Always empty: there are no files."""
    return []


def _target(spec: SmearTypes) -> tuple[tuple[str, ...], Callable[[int], int]]:
    """Names of the classes, and a cell type to its class."""
    if spec.classes == "binary":
        return BINARY, lambda kind: int(kind in MONONUCLEAR)
    if spec.classes == "three":
        return THREE, lambda kind: 1 + MONONUCLEAR.index(kind) if kind in MONONUCLEAR else 0
    return CELL_TYPES, lambda kind: kind


def _smears(spec: SmearTypes) -> Smears:
    """The smears among which a patient's cells are: each patient is a slide, with cells to spare.

    Whole turns of the cycle of types, of which each class of the binary target has 8 or more.
    """
    turns = -(-spec.per_patient // 8)
    per_slide = turns * len(CYCLE)
    return Smears(
        count=per_slide * spec.patients,
        size=spec.size,
        seed=spec.seed,
        noise=spec.noise,
        per_slide=per_slide,
    )


def _cells(spec: SmearTypes, patient: int) -> list[int]:
    """Which smears of its slide a patient has: the first of its class."""
    wanted = (patient % 2 == 1,) if spec.classes == "binary" else (False, True)
    own = count(patient * _smears(spec).per_slide)
    fitting = (i for i in own if (CYCLE[i % len(CYCLE)] in MONONUCLEAR) in wanted)
    return list(islice(fitting, spec.per_patient))


reader = Reader(SmearTypes, read, verify)
