"""SMGNN: superpixels, a graph network trained with a metric loss, and a CNN of two layers.

An image becomes about H * W / 16 superpixels, those nearer than alpha * sqrt(16) pixels become
neighbours, and three graph convolutions embed them. The embeddings, painted back on the pixels
beside their colours, go through a small CNN to the classes. Training minimises the Dice loss on
pixels plus lambda times a metric loss between superpixels of all images of the batch.

Source: Jiang et al. 2024, the SMGNN paper. It leaves open the MLPs' width, the CNN, learning rate,
batches and augmentation; what was added to it stands in `Params`, and each can be switched off.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.profiler import record_function

from hemaml.core.cache import Cache, array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, Int32Array, UInt8Array
from hemaml.data.augment import random_dihedral
from hemaml.nn.parameters import count_parameters, count_unbuilt
from hemaml.nn.schedules import one_cycle
from hemaml.nn.superpixel_network import RegionBatch, RegionNetwork, SuperpixelNetwork
from hemaml.nn.training import fit_network
from hemaml.objectives.wbc_segmentation._images import NO_CLASS, NUM_CLASSES, cleaned, one_hot
from hemaml.objectives.wbc_segmentation._regions import (
    Oversegmentation,
    RegionParams,
    Regions,
    SuperpixelParams,
    collate,
    padded,
    regions,
)
from hemaml.ops.losses import dice_loss, superpixel_metric_loss
from hemaml.ops.region_graph import node_targets
from hemaml.ops.superpixels import reconstruction_score
from hemaml.tasks import wbc_segmentation

PIXELS_AT_ONCE = 1 << 17
"""Of padded images in one batch of a prediction: more fall out of a processor's cache."""


class Params(RegionParams):
    """What can be fixed or searched."""

    channels: int = Field(default=16, ge=1, le=512, description="Hidden channels of the CNN.")
    dilation: int = Field(
        default=2,
        ge=1,
        le=2,
        description="Of the CNN's second convolution: pixels from tap to tap.",
    )

    def build(self) -> SuperpixelNetwork:
        """The network with new weights from torch's global generator."""
        return SuperpixelNetwork(
            num_classes=NUM_CLASSES,
            channels=self.channels,
            dilation=self.dilation,
            **self.embedding,
        )


def size(params: Params) -> int:
    """Parameters of the network, a and b of the metric loss included."""
    return count_unbuilt(params.build)


class SmgnnModel:
    """A fitted SMGNN; other models on superpixels name their parameters.

    Args:
        params: Its parameters.
        network: Its network; predictions run where its weights are.
        known: Regions of images that will be predicted again and again, by image digest.
    """

    params_class: ClassVar[type[SuperpixelParams]] = Params

    def __init__(
        self,
        params: SuperpixelParams,
        network: nn.Module,
        known: Mapping[str, Regions] | None = None,
    ) -> None:
        self.params = params
        self.network = network
        self._known = known or {}

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """H x W x 3 probabilities of background, cytoplasm and nucleus for each image.

        Any number of images of any sizes; how they are batched does not show in the result beyond
        rounding. Where `clean_up` changes a pixel, its probabilities trade places.
        """
        with record_function("superpixels"):
            items = [self._regions(image) for image in images]
        predicted: dict[int, Float32Array] = {}
        for chosen in _batches_by_size(items):
            with record_function("network"):
                probabilities = self._probabilities([items[i] for i in chosen])
            with record_function("clean_up"):
                for index, values in zip(chosen, probabilities, strict=True):
                    predicted[index] = cleaned(values) if self.params.clean_up else values
        return [predicted[index] for index in range(len(items))]

    def embed(self, images: Sequence[UInt8Array]) -> list[tuple[Int32Array, Float32Array]]:
        """The superpixels of each image: labels H x W, and their embeddings, K x D."""
        items = [self._regions(image) for image in images]
        return [(item.labels, self._outputs([item])[1].float().cpu().numpy()) for item in items]

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = self.params.model_dump(mode="json", by_alias=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU."""
        params = cls.params_class.model_validate_json((folder / "config.json").read_bytes())
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            network = params.build()
        network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        return cls(params, network)

    def _regions(self, image: UInt8Array) -> Regions:
        known = self._known.get(array_digest(image)) if self._known else None
        return known or regions(image, self.params.oversegmentation, Cache.off())

    @torch.inference_mode()
    def _outputs(self, items: Sequence[Regions]) -> tuple[Tensor, Tensor]:
        """Logits of padded images, and the embeddings of all superpixels."""
        self.network.eval()
        batch = collate(items, stretch=self.params.colour_stretch)
        logits, embeddings = self.network(batch.to(next(self.network.parameters()).device))
        return logits, embeddings

    def _probabilities(self, items: Sequence[Regions]) -> list[Float32Array]:
        logits, _ = self._outputs(items)
        values = logits.softmax(dim=1).permute(0, 2, 3, 1).float().cpu().numpy()
        return [
            value[: item.labels.shape[0], : item.labels.shape[1]].copy()
            for value, item in zip(values, items, strict=True)
        ]


def _batches_by_size(items: Sequence[Regions]) -> Iterator[list[int]]:
    """Indices of images of similar size, so that little is padding, in batches that fit."""
    order = sorted(range(len(items)), key=lambda i: max(items[i].labels.shape))
    batch: list[int] = []
    for index in order:
        side = max(items[index].labels.shape)
        if batch and (len(batch) + 1) * side**2 > PIXELS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image to learn from: its regions, its mask, the target of each superpixel."""

    regions: Regions
    mask: UInt8Array
    targets: Float32Array


@dataclass(frozen=True, slots=True)
class Batch:
    """What one update sees.

    Attributes:
        regions: The images.
        one_hot: N x C x G x G bool, false for all classes at padding.
        targets: K targets of the superpixels, in 0..1.
    """

    regions: RegionBatch
    one_hot: Tensor
    targets: Tensor

    def to(self, device: str) -> "Batch":
        """The same on a device."""
        return Batch(self.regions.to(device), self.one_hot.to(device), self.targets.to(device))


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold; see the module. Raises as `train`."""
    return train(SmgnnModel, joint_loss, params, fold, context)


def train(
    model_class: type[SmgnnModel],
    loss: Callable[[Any, Batch, Any, torch.Generator], dict[str, Tensor]],
    params: RegionParams,
    fold: Fold,
    context: Context,
) -> Iterator[Step]:
    """Trains a network on superpixels.

    Args:
        model_class: Of the steps.
        loss: Network, batch, parameters and the generator that draws pairs to the parts.
        params: Of `model_class`.
        fold: Training and validation part.
        context: As for every fit.

    Raises:
        DataError: A training image has a single superpixel.
        Diverged: The loss is not finite.
        OutOfMemory: No memory for a batch.
    """
    how = params.oversegmentation
    labelled = learnable(fold.train, how, context.cache)
    for name, item in zip(fold.train.ids, labelled, strict=True):
        if len(item.targets) < 2:  # of which batch norm would have no deviation
            height, width = item.mask.shape
            raise DataError(
                "an image must have two superpixels at least, since it may come alone in a batch, "
                f"but {name} of {height} x {width} pixels is one by `scale: {how.scale:g}`. Lower "
                "`scale`, or take the image out."
            )
    known = {array_digest(i): regions(i, how, context.cache) for i in fold.val.images}
    highest = {"iou_reconstruction": ceiling(fold.val, known)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(context.seed, "weights"))
        network = params.build()
    network = network.to(context.device)
    model = model_class(params, network, known)
    draws = {
        name: torch.Generator().manual_seed(derive_seed(context.seed, name))
        for name in ("order", "augmentation", "pairs")
    }

    def batches(epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(labelled), generator=draws["order"]).tolist()
        for first in range(0, len(order), params.batch_size):
            items = [labelled[i] for i in order[first : first + params.batch_size]]
            codes = random_dihedral(len(items), draws["augmentation"]) if params.augment else None
            yield batch_of(items, stretch=params.colour_stretch, codes=codes).to(context.device)

    optimiser = torch.optim.Adam(
        network.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True
    )
    yield from fit_network(
        network,
        optimiser,
        batches=batches,
        loss=lambda batch: loss(network, batch, params, draws["pairs"]),
        validate=lambda: {**wbc_segmentation.score(model, fold.val), **highest},
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        schedule=one_cycle(params.epochs * -(-len(labelled) // params.batch_size)),
        generators=draws,
        context=context,
    )


def joint_loss(
    network: SuperpixelNetwork, batch: Batch, params: Params, generator: torch.Generator
) -> dict[str, Tensor]:
    """The Dice loss plus lambda times the metric loss, and the parts.

    Source: eq. 3.3 of the SMGNN paper.
    """
    logits, embeddings = network(batch.regions)
    valid = (batch.regions.labels < len(embeddings))[:, None]
    dice = dice_loss(logits.softmax(dim=1) * valid, batch.one_hot)
    if params.lambda_ == 0:
        return {"loss": dice, "dice_loss": dice}
    metric = metric_loss(network, embeddings, batch, params, generator)
    return {"loss": dice + params.lambda_ * metric, "dice_loss": dice, "metric_loss": metric}


def metric_loss(
    network: RegionNetwork,
    embeddings: Tensor,
    batch: Batch,
    params: RegionParams,
    generator: torch.Generator,
) -> Tensor:
    """The superpixel metric loss of a batch, as the parameters want it."""
    return superpixel_metric_loss(
        embeddings,
        batch.targets,
        a=network.a,
        b=network.b,
        target=params.metric_target,
        num_pairs=params.num_pairs,
        generator=generator,
    )


def learnable(data: Dataset, how: Oversegmentation, cache: Cache) -> list[Labelled]:
    """Each image with its superpixels and what they are to learn."""
    found = [regions(image, how, cache) for image in data.images]
    return [
        Labelled(item, mask, node_targets(item.labels, mask, num_classes=NUM_CLASSES))
        for item, mask in zip(found, data.masks, strict=True)
    ]


def ceiling(data: Dataset, known: Mapping[str, Regions]) -> float:
    """Mean IoU reconstruction score (eq. 2.2): what whole superpixels of this setting can reach."""
    return fmean(
        reconstruction_score(known[array_digest(image)].labels, mask, num_classes=NUM_CLASSES)
        for image, mask in zip(data.images, data.masks, strict=True)
    )


def batch_of(items: Sequence[Labelled], *, stretch: bool, codes: Tensor | None) -> Batch:
    """What an update sees of some images; `stretch` and `codes` as for `collate`."""
    masks = padded([item.mask for item in items], codes, fill=NO_CLASS)[:, 0]
    return Batch(
        collate([item.regions for item in items], stretch=stretch, codes=codes),
        one_hot(masks),
        torch.from_numpy(np.concatenate([item.targets for item in items])),
    )


objective = Objective(
    task=wbc_segmentation.task,
    params=Params,
    model=SmgnnModel,
    fit=fit,
    size=size,
    untrained=lambda params, device: SmgnnModel(params, params.build().to(device)),
    mutable=frozenset({"lr", "lambda"}),
    figures=("embeddings",),
    examples=(
        {"epochs": 2, "validate_every": 1, "batch_size": 4, "width": 6},
        {"epochs": 2, "lambda": 0, "conv": "gcn", "graph_mean": False, "augment": False},
        {"epochs": 1, "conv": "gat", "metric_target": "similarity", "colour_stretch": False},
        {"epochs": 1, "conv": "sage", "superpixels": "slic", "residual": False, "clean_up": False},
    ),
)
