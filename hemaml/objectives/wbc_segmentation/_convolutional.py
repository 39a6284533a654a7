"""What networks from pixels to pixels share here: parameters, training and the fitted model.

A network takes N x 3 x H x W colours in -1..1 and gives N x C x H x W logits, for any sides that
its `multiple` divides. Images are mirrored at their right and lower edges up to such sides and
what was added is cropped, so that nothing is scaled or distorted.

Source: Jiang et al. 2024, the SMGNN paper, trains all of its segmenters with the Dice loss
(section 4.1) by Adam (section 4); it leaves open learning rates, batches, epochs, augmentation.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import record_function

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, Frozen, UInt8Array
from hemaml.data.augment import random_dihedral
from hemaml.nn.parameters import count_parameters, count_unbuilt
from hemaml.nn.schedules import one_cycle
from hemaml.nn.training import Precision, fit_network
from hemaml.objectives.wbc_segmentation._images import (
    NO_CLASS,
    cleaned,
    colour_quantiles,
    colour_range,
    normal,
    one_hot,
    turned,
)
from hemaml.ops.losses import dice_loss
from hemaml.tasks import wbc_segmentation

PIXELS_AT_ONCE = 1 << 17
"""Of images in one batch of a prediction."""
Batch = tuple[Tensor, Tensor]
"""Colours N x 3 x H x W, and classes N x H x W with `NO_CLASS` where there is no image."""


class ConvolutionalParams(Frozen, ABC):
    """What can be fixed or searched; a network of its own parameters adds those."""

    multiple: ClassVar[int]
    """What the sides of a batch must be multiples of."""

    width: float = Field(
        default=1, ge=1 / 64, le=4, description="Multiplies all channels; 1 is the paper's size."
    )
    lr: float = Field(default=1e-3, gt=0, le=1, description="Adam's highest learning rate.")
    cross_entropy: float = Field(
        default=0, ge=0, le=100, description="Its weight beside the Dice loss; 0 in the paper."
    )
    colour_stretch: bool = Field(
        default=True, description="Colours relative to the 1 % and 99 % quantiles of the image."
    )
    augment: bool = Field(default=True, description="Random flips and quarter turns.")
    clean_up: bool = Field(
        default=True, description="Predictions become one cell without holes, see ops.clean_up."
    )
    epochs: int = Field(default=40, ge=1, le=10_000, description="Passes over the training part.")
    batch_size: int = Field(
        default=8, ge=1, le=1024, description="Images in a batch, at most; all are about equal."
    )
    validate_every: int = Field(default=4, ge=1, le=10_000, description="Epochs per validation.")
    weight_decay: float = Field(default=0, ge=0, le=1, description="Adam's L2 penalty.")
    precision: Precision = Field(
        default="float32",
        description="What training multiplies in; bfloat16 is faster where the hardware has it.",
    )

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""

    def channels(self, at_width_1: int) -> int:
        """So many channels at this width, at least one."""
        return max(1, round(at_width_1 * self.width))


class ConvolutionalModel:
    """A fitted network; each kind of parameters has its class of model, which names them.

    Args:
        params: Its parameters.
        network: Its network; predictions run where its weights are.
    """

    params_class: ClassVar[type[ConvolutionalParams]]

    def __init__(self, params: ConvolutionalParams, network: nn.Module) -> None:
        self.params = params
        self.network = network

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """H x W x 3 probabilities of background, cytoplasm and nucleus for each image.

        Any number of images of any sizes; how they are batched does not show in the result beyond
        rounding. Where `clean_up` changes a pixel, its probabilities trade places.
        """
        predicted: dict[int, Float32Array] = {}
        for chosen in _batches_by_shape(images):
            with record_function("network"):
                probabilities = self._probabilities([images[i] for i in chosen])
            with record_function("clean_up"):
                for index, values in zip(chosen, probabilities, strict=True):
                    predicted[index] = cleaned(values) if self.params.clean_up else values
        return [predicted[index] for index in range(len(images))]

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = self.params.model_dump(mode="json")
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU."""
        params = cls.params_class.model_validate_json((folder / "config.json").read_bytes())
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            network = params.build()
        network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        return cls(params, network.to(memory_format=torch.channels_last))

    @torch.inference_mode()
    def _probabilities(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """Of images of one shape."""
        rows, columns = images[0].shape[:2]
        batch = colours(images, [colour_quantiles(image) for image in images], self.params)
        logits: Tensor = self.network.eval()(batch.to(next(self.network.parameters()).device))
        inside = logits[:, :, :rows, :columns].float().softmax(dim=1)
        return list(inside.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def colours(
    images: Sequence[UInt8Array], quantiles: Sequence[Float32Array], params: ConvolutionalParams
) -> Tensor:
    """N x 3 x H x W colours in about -1..1, channels last: a processor convolves them faster.

    Args:
        images: N arrays of rows x columns x 3.
        quantiles: Those of each image.
        params: The network's.
    """
    low_N3, high_N3 = colour_range(quantiles, stretch=params.colour_stretch)
    pixels = torch.from_numpy(framed(images, multiple=params.multiple)).permute(0, 3, 1, 2)
    return normal(pixels, low_N3[:, :, None, None], high_N3[:, :, None, None])


def framed(
    images: Sequence[NDArray[Any]], *, multiple: int, fill: int | None = None
) -> NDArray[Any]:
    """Images of one shape, the largest's, grown at the right and the bottom.

    Sides become multiples, at least two: a network's smallest map then has more than one pixel,
    without which batch norm has no deviation.

    Args:
        images: N arrays of rows x columns, with channels or without.
        multiple: What divides both sides of the result.
        fill: Value of what is added; None mirrors the image there.
    """
    largest = [max(image.shape[axis] for image in images) for axis in (0, 1)]
    sides = [max(2, -(-side // multiple)) * multiple for side in largest]
    grown = []
    for image in images:
        added = [(0, side - old) for side, old in zip(sides, image.shape, strict=False)]
        added += [(0, 0)] * (image.ndim - 2)
        if fill is None:
            grown.append(np.pad(image, added, mode="symmetric"))
        else:
            grown.append(np.pad(image, added, constant_values=fill))
    return np.stack(grown)


def fit(
    model_class: type[ConvolutionalModel], params: ConvolutionalParams, fold: Fold, context: Context
) -> Iterator[Step]:
    """Trains on a fold; see the module.

    Raises:
        Diverged: The loss is not finite.
        OutOfMemory: No memory for a batch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(context.seed, "weights"))
        network = params.build()
    model = model_class(params, _placed(network, context.device))
    draws = {
        name: torch.Generator().manual_seed(derive_seed(context.seed, name))
        for name in ("order", "augmentation")
    }
    quantiles = [colour_quantiles(image) for image in fold.train.images]
    num_batches = -(-len(fold.train) // params.batch_size)

    def batches(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(fold.train), generator=draws["order"])
        for chosen in order.tensor_split(num_batches):
            pixels, classes = _batch(fold.train, quantiles, chosen, params, draws["augmentation"])
            yield pixels.to(context.device), classes.to(context.device)

    yield from fit_network(
        network,
        torch.optim.Adam(
            network.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True
        ),
        batches=batches,
        loss=lambda batch: segmentation_loss(network(batch[0]), batch[1], params),
        validate=lambda: wbc_segmentation.score(model, fold.val),
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        schedule=one_cycle(params.epochs * num_batches),
        generators=draws,
        precision=params.precision,
        context=context,
    )


def segmentation_loss(
    logits: Tensor, classes_NHW: Tensor, params: ConvolutionalParams
) -> Mapping[str, Tensor]:
    """The Dice loss plus the cross-entropy by its weight, and the parts; padding counts nowhere."""
    logits = logits.float()  # sums over all pixels are too much for half precision
    inside = (classes_NHW != NO_CLASS)[:, None]
    dice = dice_loss(logits.softmax(dim=1), one_hot(classes_NHW), valid=inside)
    if params.cross_entropy == 0:
        return {"loss": dice, "dice_loss": dice}
    cross = functional.cross_entropy(logits, classes_NHW, ignore_index=NO_CLASS)
    loss = dice + params.cross_entropy * cross
    return {"loss": loss, "dice_loss": dice, "cross_entropy": cross}


def objective_of(
    model_class: type[ConvolutionalModel], examples: Sequence[Mapping[str, object]]
) -> Objective:
    """The objective that trains a class of model; its examples are those of `Objective`."""

    def untrained(params: ConvolutionalParams, device: str) -> ConvolutionalModel:
        return model_class(params, _placed(params.build(), device))

    return Objective(
        task=wbc_segmentation.task,
        params=model_class.params_class,
        model=model_class,
        fit=partial(fit, model_class),
        size=lambda params: count_unbuilt(params.build),
        mutable=frozenset({"lr", "cross_entropy"}),
        untrained=untrained,
        examples=tuple(examples),
    )


def _placed(network: nn.Module, device: str) -> nn.Module:
    return network.to(device).to(memory_format=torch.channels_last)


def _batch(
    data: Dataset,
    quantiles: Sequence[Float32Array],
    chosen: Tensor,
    params: ConvolutionalParams,
    generator: torch.Generator,
) -> Batch:
    """Chosen images and their masks, each under its own element of the dihedral group."""
    codes = random_dihedral(len(chosen), generator) if params.augment else torch.zeros_like(chosen)
    drawn = list(zip(chosen.tolist(), codes.tolist(), strict=True))
    pixels = colours(
        [turned(data.images[i], code) for i, code in drawn],
        [quantiles[i] for i, _ in drawn],
        params,
    )
    masks = [turned(data.masks[i], code) for i, code in drawn]
    classes = framed(masks, multiple=params.multiple, fill=NO_CLASS)
    return pixels, torch.from_numpy(classes).long()


def _batches_by_shape(images: Sequence[UInt8Array]) -> Iterator[list[int]]:
    """Indices of images of one shape, in batches that fit: what is mirrored depends on no other."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        shapes.setdefault(image.shape, []).append(index)
    for shape, found in shapes.items():
        num = max(1, PIXELS_AT_ONCE // (shape[0] * shape[1]))
        yield from (found[first : first + num] for first in range(0, len(found), num))
