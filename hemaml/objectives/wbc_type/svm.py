"""The classical route: a support vector machine on shape, colour and texture of the segmented cell.

With `segmentation: none` the whole image counts as cytoplasm: its colours and textures remain. How
the machine is trained stands in `hemaml.objectives._kernel_machines`; all classes share one curve,
since the rarest type may have a single training image.

Source: Jiang et al. 2024, the SMGNN paper, section 4.6, which cites such machines with accuracies
of .8969 to .96; see `_features`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.data.cells import CELL_TYPES
from hemaml.objectives._kernel_machines import MachineParams, train_rare
from hemaml.objectives.wbc_type._features import (
    COLUMNS,
    Kind,
    described,
    feature_rows,
    num_features,
)
from hemaml.objectives.wbc_type._segmenters import (
    SegmentationParams,
    Segmenter,
    mask_scores,
    restored,
    segmenter_of,
)
from hemaml.ops.kernel_machine import KernelMachine
from hemaml.tasks import wbc_type


class Params(MachineParams, SegmentationParams):
    """What can be fixed or searched."""

    features: Kind = Field(default="all", description="What a cell becomes.")

    @model_validator(mode="after")
    def _check_pca(self) -> Self:
        if self.pca > num_features(self.features):
            raise ValueError(
                f"`pca` must be at most the {num_features(self.features)} features of "
                f"{self.features!r}, but got {self.pca}. Lower it, or set it to 0 for none."
            )
        return self


def size(params: Params) -> int:
    """Values that are known before training, for five types; a lower bound but for a linear one.

    How many images become support vectors shows in training; here they are two, the fewest.
    """
    features, classes = num_features(params.features), len(CELL_TYPES)
    kept = params.pca or features
    supports = classes if params.kernel == "linear" else 2
    return 2 * features + params.pca * features + supports * (kept + classes) + 3 * classes


class CellSvmModel:
    """A fitted machine with its segmenter; see `hemaml.tasks._classification.Classifier`.

    Args:
        params: Its parameters.
        machine: Classifies features.
        segmenter: Makes the masks of new images.
        known: Images that will be predicted again and again, and their N x D features.
    """

    def __init__(
        self,
        params: Params,
        machine: KernelMachine,
        segmenter: Segmenter,
        known: tuple[Sequence[UInt8Array], Float32Array] | None = None,
    ) -> None:
        self.params = params
        self.machine = machine
        self.segmenter = segmenter
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Numbers that training found; those of a segmenter do not count."""
        return self.machine.num_values

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C class probabilities for each image, of any sizes.

        Raises:
            DataError: The model has drawn masks, and none of one of the images.
        """
        return list(self.machine.probabilities(self._features(images)))

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`features`: N x P, as they enter the kernel."""
        return {"features": self.machine.seen(self._features(images))}

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """Probabilities, and `features`, in one pass."""
        features = self._features(images)
        return list(self.machine.probabilities(features)), self.machine.seen(features)

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json`, the segmenter within, into a folder."""
        from safetensors.numpy import save_file

        own = {f"svm.{k}": np.ascontiguousarray(v) for k, v in self.machine.arrays().items()}
        stored = {f"segmenter.{k}": v.copy() for k, v in self.segmenter.stored().items()}
        save_file({**own, **stored}, folder / "model.safetensors")
        config = {
            "params": self.params.model_dump(mode="json"),
            "gamma": self.machine.gamma,
            "segmenter": {"kind": self.segmenter.kind, "origin": self.segmenter.origin},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_bytes())
        params = Params.model_validate(config["params"])
        arrays = load_file(folder / "model.safetensors")
        own, stored = (
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            for prefix in ("svm.", "segmenter.")
        )
        machine = KernelMachine.from_arrays(params.kernel, config["gamma"], own)
        return cls(params, machine, restored(**config["segmenter"], arrays=stored))

    def _features(self, images: Sequence[UInt8Array]) -> Float32Array:
        if self._known is not None and images is self._known[0]:
            return self._known[1]
        rows = [described(image, self.segmenter.mask(image)) for image in images]
        return np.stack(rows)[:, COLUMNS[self.params.features]]


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold, with masks from the segmenter, and yields once; see the module.

    Raises:
        ConfigError: A recorded model is no segmenter, or there are fewer training images than
            components.
        DataError: Drawn masks are needed, but the data has none; or all images are of one class.
        StoreError: There is no such recorded model.
    """
    if context.state is not None:  # all was done before it was stopped
        return
    segmenter = segmenter_of(params, fold, context)
    columns = COLUMNS[params.features]
    train, val = (
        feature_rows(segmenter, part.images, part.contents(), context.cache)[:][:, columns]
        for part in (fold.train, fold.val)
    )
    machine = train_rare(train, fold.train, params, seed=derive_seed(context.seed, "svm"))
    model = CellSvmModel(params, machine, segmenter, (fold.val.images, val))
    masks = mask_scores(segmenter, fold.val, context.cache)
    metrics = {**wbc_type.task.score(model, fold.val), **masks}
    metrics["support_vectors"] = float(len(machine.supports))
    yield Step(0, metrics, model, lambda: {"done": True})


objective = Objective(
    task=wbc_type.task,
    params=Params,
    model=CellSvmModel,
    fit=fit,
    size=size,
    scores=lambda model, data: mask_scores(model.segmenter, data),
    examples=(  # none with drawn masks: such a model takes no other image
        {"segmenters": {"wbc_segmentation.smgnn": {"epochs": 1, "width": 6}}},
        {"segmentation": "none", "kernel": "linear", "pca": 4, "features": "colour_texture"},
    ),
)
