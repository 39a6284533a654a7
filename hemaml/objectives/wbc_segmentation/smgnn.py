"""SMGNN: superpixel graph, three graph convolutions with a metric loss, and a small CNN.

An image becomes superpixels (SNIC), and these a graph whose nodes carry mean colour and position.
Graph convolutions embed the nodes; a metric loss orders the embeddings across the images of a
batch. Each pixel takes its superpixel's embedding, and two convolutions over embedding and colour
give the classes.

Source: Jiang, Shen, Wang, Ding: Automatic recognition of white blood cell images with memory
efficient superpixel metric GNN: SMGNN (2024), sections 2 to 4.

Shape suffixes: N images, n nodes of a batch, E edges, D width, C classes, P side of the square
that a batch is padded to, H and W sides of one image.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hemaml.core.cache import Cache, array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.task import Fold
from hemaml.core.types import Arrays, Float32Array, Frozen, UInt8Array
from hemaml.data.augment import apply_dihedral, random_dihedral
from hemaml.nn.graph import GraphConvolution, adjacency, graph_mean
from hemaml.nn.parameters import num_parameters, size_on_meta
from hemaml.nn.training import fit_network
from hemaml.ops.clean_up import clean_up
from hemaml.ops.losses import dice_loss, superpixel_metric_loss
from hemaml.ops.region_graph import VERSION as GRAPH_VERSION
from hemaml.ops.region_graph import node_features, node_targets, radius_edges
from hemaml.ops.superpixels import VERSION as SUPERPIXELS_VERSION
from hemaml.ops.superpixels import superpixels
from hemaml.tasks.wbc_segmentation import CLASSES, task

NUM_CLASSES = len(CLASSES)
NODE_FEATURES = 5
PREDICT_PIXELS = 1_000_000
"""Pixels of one batch of predictions."""


class Params(Frozen):
    """What can be fixed or searched."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    lr: float = Field(default=1e-2, gt=0, le=1, description="Peak rate of Adam in one cycle.")
    lambda_: float = Field(
        default=0.1, ge=0, le=100, alias="lambda", description="Weight of the metric loss, eq. 3.3."
    )
    scale: float = Field(default=16, ge=2, le=1000, description="S: mean pixels a superpixel.")
    superpixels: Literal["snic", "slic"] = Field(
        default="snic", description="How superpixels are found; slic is scikit-image's."
    )
    compactness: float = Field(
        default=5, gt=0, le=1000, description="Weight of position against colour in superpixels."
    )
    connectivity: Literal[4, 8] = Field(
        default=8, description="Neighbours through which a superpixel grows (snic)."
    )
    alpha: float = Field(
        default=3, ge=1, le=10, description="Nodes nearer than alpha sqrt(S) are linked."
    )
    conv: Literal["gin", "gcn", "gat", "sage"] = Field(
        default="gin", description="Graph convolution; the paper's is gin."
    )
    layers: int = Field(default=3, ge=1, le=10, description="Graph convolutions.")
    width: int = Field(default=20, ge=1, le=1024, description="Channels of embeddings and CNN.")
    metric_target: Literal["paper", "similarity"] = Field(
        default="similarity",
        description="Target of the metric loss: eq. 2.7 as printed, or 1 - |y_i - y_j|.",
    )
    num_pairs: int = Field(
        default=512, ge=1, le=16384, description="Anchors, and as many references, a batch."
    )
    residual: bool = Field(default=True, description="Whether a layer adds to its input.")
    graph_mean: bool = Field(
        default=True, description="Whether nodes also see the mean of their image's nodes."
    )
    colour_stretch: bool = Field(
        default=True, description="Whether each channel is stretched from its p1 to its p99."
    )
    second_conv: bool = Field(
        default=True, description="Whether a second 3x3 convolution (dilation 2) follows the first."
    )
    augment: bool = Field(default=True, description="Flips and transposes of training images.")
    clean_up: bool = Field(
        default=True, description="Largest component kept and holes filled in predictions."
    )
    batch_size: int = Field(default=8, ge=1, le=1024, description="Images a batch.")
    weight_decay: float = Field(default=0, ge=0, le=1, description="Of Adam.")
    epochs: int = Field(default=100, ge=1, le=10000, description="Passes over the training part.")
    validate_every: int = Field(default=5, ge=1, description="Epochs from one step to the next.")


class Smgnn(nn.Module):
    """The network: node features and graph, pixels and their superpixels, to class scores."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        width = params.width
        self.convolutions = nn.ModuleList(
            GraphConvolution(params.conv, NODE_FEATURES if i == 0 else width, width)
            for i in range(params.layers)
        )
        self.residual = params.residual
        self.mean = nn.Linear(width, width) if params.graph_mean else None
        if params.second_conv:
            self.head = nn.Conv2d(width + 3, width, 3, padding=1)
            self.tail: nn.Conv2d | None = nn.Conv2d(width, NUM_CLASSES, 3, padding=2, dilation=2)
        else:
            self.head = nn.Conv2d(width + 3, NUM_CLASSES, 3, padding=1)
            self.tail = None
        self.a = nn.Parameter(torch.ones(()))
        self.b = nn.Parameter(torch.zeros(()))

    def embed(self, features_n5: Tensor, adjacency_nn: Tensor, sizes_N: Tensor) -> Tensor:
        """Embeddings of the nodes, n x D (eq. 2.3 and 2.4)."""
        h_nD = features_n5
        for i, convolution in enumerate(self.convolutions):
            out_nD = convolution(h_nD, adjacency_nn)
            if i == 0 and self.mean is not None:
                out_nD = out_nD + self.mean(graph_mean(out_nD, sizes_N))
            h_nD = h_nD + out_nD if self.residual and i > 0 else out_nD
        return h_nD

    def classify(self, h_nD: Tensor, pixels_N3PP: Tensor, nodes_NPP: Tensor) -> Tensor:
        """Class scores of the pixels, N x C x P x P.

        Padding (node -1) is held at zero between the convolutions, so that it acts as the zero
        padding at an image's own border does, and no image depends on its batch.

        Args:
            h_nD: Embeddings.
            pixels_N3PP: Colours; 0 in the padding.
            nodes_NPP: Row of `h_nD` that a pixel belongs to; -1 in the padding.
        """
        rows_nD = torch.cat([h_nD, h_nD.new_zeros(1, h_nD.shape[1])])  # -1 is the zero row
        back_NDPP = nn.functional.embedding(nodes_NPP % len(rows_nD), rows_nD).permute(0, 3, 1, 2)
        x = self.head(torch.cat([back_NDPP, pixels_N3PP], dim=1))
        if self.tail is None:
            return x
        x = torch.relu(x) * (nodes_NPP >= 0).unsqueeze(1)
        return self.tail(x)


@dataclass(frozen=True, slots=True)
class Images:
    """Images with their graphs, padded to one square, and masks where there are any.

    Attributes:
        pixels_N3PP: uint8, stretched colours.
        nodes_NPP: int32, superpixel of each pixel within its image; -1 in the padding.
        graphs: One dictionary an image: `features` (K x 5), `crow`, `col`, perhaps `targets` (K).
        masks_NPP: uint8 class indices; None where images are only predicted.
    """

    pixels_N3PP: Tensor
    nodes_NPP: Tensor
    graphs: Sequence[dict[str, Tensor]]
    masks_NPP: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one pass of the network takes, on its device."""

    features_n5: Tensor
    adjacency_nn: Tensor
    sizes_N: Tensor
    pixels_N3PP: Tensor
    nodes_NPP: Tensor
    targets_n: Tensor | None
    masks_NPP: Tensor | None


def prepare(images: Sequence[UInt8Array], params: Params, cache: Cache) -> Images:
    """Superpixels, graphs and padding of images of any sizes."""
    prepared = [_graph(image, params, cache) for image in images]
    side = max(max(image.shape[:2]) for image in images)
    pixels_N3PP = torch.zeros(len(images), 3, side, side, dtype=torch.uint8)
    nodes_NPP = torch.full((len(images), side, side), -1, dtype=torch.int32)
    for i, arrays in enumerate(prepared):
        rows, columns = arrays["labels"].shape
        pixels_N3PP[i, :, :rows, :columns] = torch.from_numpy(arrays["pixels"]).permute(2, 0, 1)
        nodes_NPP[i, :rows, :columns] = torch.from_numpy(arrays["labels"])
    graphs = [
        {name: torch.from_numpy(arrays[name]) for name in ("features", "crow", "col")}
        for arrays in prepared
    ]
    return Images(pixels_N3PP, nodes_NPP, graphs)


def prepare_labelled(data: Dataset, params: Params, cache: Cache) -> Images:
    """The same with masks, and the nodes' targets of the metric loss (eq. 2.1)."""
    images = prepare(data.images, params, cache)
    masks_NPP = torch.zeros(images.nodes_NPP.shape, dtype=torch.uint8)
    for i, mask in enumerate(data.masks):
        rows, columns = mask.shape
        masks_NPP[i, :rows, :columns] = torch.from_numpy(mask)
        labels = images.nodes_NPP[i, :rows, :columns].contiguous().numpy()
        targets = node_targets(labels, mask, num_classes=NUM_CLASSES)
        images.graphs[i]["targets"] = torch.from_numpy(targets)
    return Images(images.pixels_N3PP, images.nodes_NPP, images.graphs, masks_NPP)


def _graph(image: UInt8Array, params: Params, cache: Cache) -> Arrays:
    """Pixels, superpixels and region graph of one image: all that no weight changes."""
    settings = {
        "scale": params.scale,
        "compactness": params.compactness,
        "method": params.superpixels,
        "connectivity": params.connectivity,
        "alpha": params.alpha,
        "stretch": params.colour_stretch,
    }
    key = {
        **settings,
        "image": array_digest(image),
        "versions": [SUPERPIXELS_VERSION, GRAPH_VERSION, 1],
    }
    return cache.arrays("region_graph", key, lambda: _compute_graph(image, params))


def _compute_graph(image: UInt8Array, params: Params) -> Arrays:
    pixels = _stretch(image) if params.colour_stretch else image
    labels = superpixels(
        pixels,
        scale=params.scale,
        compactness=params.compactness,
        method=params.superpixels,
        connectivity=params.connectivity,
    )
    features = node_features(pixels, labels)
    source, target = radius_edges(features[:, 3:], radius=params.alpha * params.scale**0.5)
    crow = np.zeros(len(features) + 1, dtype=np.int64)
    np.cumsum(np.bincount(source, minlength=len(features)), out=crow[1:])
    # Positions relative to the centre: a flip is then a change of sign.
    features[:, 3:] = features[:, 3:] / (np.array(image.shape[:2]) - 1).clip(1) - 0.5
    return {
        "pixels": pixels,
        "labels": labels,
        "features": features,
        "crow": crow,
        "col": target.astype(np.int32),
    }


def _stretch(image: UInt8Array) -> UInt8Array:
    """Each channel from its 1st to its 99th percentile to 0..255: evens out light and stain."""
    low, high = np.percentile(image, (1, 99), axis=(0, 1))
    scaled = (image - low) * (255 / np.maximum(high - low, 1))
    stretched: UInt8Array = scaled.clip(0, 255).astype(np.uint8)
    return stretched


def collate(
    images: Images, chosen: Sequence[int], device: str, codes: Tensor | None = None
) -> Batch:
    """The chosen images as one graph and one stack of pixels, moved by dihedral codes if given.

    Superpixels move with their image, so its graph stays, and only positions change.
    """
    graphs = [images.graphs[i] for i in chosen]
    sizes_N = torch.tensor([len(graph["features"]) for graph in graphs])
    starts_N = torch.cumsum(sizes_N, 0) - sizes_N
    picked = torch.tensor(chosen)
    nodes_NPP, pixels_N3PP = images.nodes_NPP[picked], images.pixels_N3PP[picked]
    masks_NPP = images.masks_NPP[picked] if images.masks_NPP is not None else None
    features = [graph["features"] for graph in graphs]
    if codes is not None:
        nodes_NPP = apply_dihedral(nodes_NPP.unsqueeze(1), codes).squeeze(1)
        pixels_N3PP = apply_dihedral(pixels_N3PP, codes)
        if masks_NPP is not None:
            masks_NPP = apply_dihedral(masks_NPP.unsqueeze(1), codes).squeeze(1)
        features = [_move(x, int(code)) for x, code in zip(features, codes, strict=True)]
    shifted_NPP = nodes_NPP + starts_N.to(torch.int32)[:, None, None]
    nodes_NPP = torch.where(nodes_NPP < 0, nodes_NPP, shifted_NPP)
    pixels_N3PP = pixels_N3PP.to(device).to(torch.float32, memory_format=torch.channels_last) / 255
    targets = [graph["targets"] for graph in graphs if "targets" in graph]
    return Batch(
        features_n5=torch.cat(features).to(device),
        adjacency_nn=adjacency(graphs, starts_N).to(device),
        sizes_N=sizes_N.to(device),
        pixels_N3PP=pixels_N3PP,
        nodes_NPP=nodes_NPP.to(device),
        targets_n=torch.cat(targets).to(device) if targets else None,
        masks_NPP=masks_NPP.to(device) if masks_NPP is not None else None,
    )


def _move(features_K5: Tensor, code: int) -> Tensor:
    """Node features under a dihedral code: colours stay, centred positions change axis or sign."""
    row, column = features_K5[:, 3], features_K5[:, 4]
    if code & 4:
        row, column = column, row
    if code & 2:
        row = -row
    if code & 1:
        column = -column
    return torch.cat([features_K5[:, :3], row[:, None], column[:, None]], dim=1)


class SmgnnModel:
    """A fitted SMGNN; see `hemaml.core.objective.Model`."""

    def __init__(
        self, network: Smgnn, params: Params, device: str = "cpu", cache: Cache | None = None
    ) -> None:
        self.network = network.to(device)
        self.params = params
        self.device = device
        self.cache = cache or Cache.off()

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed: all."""
        return num_parameters(self.network, trainable=True)

    @torch.inference_mode()
    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """Probabilities of background, cytoplasm and nucleus, H x W x 3, for images of any sizes.

        Where `clean_up` changes the class of a pixel, the probabilities of the two classes are
        exchanged, so that the most probable class is the one meant.
        """
        self.network.eval()
        predicted: dict[int, Float32Array] = {}
        for chosen in _batches_by_size(images):
            prepared = prepare([images[i] for i in chosen], self.params, self.cache)
            batch = collate(prepared, range(len(chosen)), self.device)
            h_nD = self.network.embed(batch.features_n5, batch.adjacency_nn, batch.sizes_N)
            scores = self.network.classify(h_nD, batch.pixels_N3PP, batch.nodes_NPP)
            stack = torch.softmax(scores, dim=1).permute(0, 2, 3, 1).cpu().numpy()
            for row, i in enumerate(chosen):
                height, width = images[i].shape[:2]
                found = np.ascontiguousarray(stack[row, :height, :width])
                predicted[i] = _cleaned(found) if self.params.clean_up else found
        return [predicted[i] for i in range(len(images))]

    def save(self, folder: Path) -> None:
        """Writes `weights.safetensors` and `params.json`."""
        save_file(
            {name: t.contiguous() for name, t in self.network.state_dict().items()},
            folder / "weights.safetensors",
        )
        text = json.dumps(self.params.model_dump(mode="json", by_alias=True), indent=1)
        (folder / "params.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""
        params = Params.model_validate_json((folder / "params.json").read_text(encoding="utf-8"))
        network = Smgnn(params)
        network.load_state_dict(load_file(folder / "weights.safetensors"))
        return cls(network, params)


def _batches_by_size(images: Sequence[UInt8Array]) -> Iterator[list[int]]:
    """Indices in batches of like sizes and at most `PREDICT_PIXELS` pixels, padding included."""
    batch: list[int] = []
    for i in sorted(range(len(images)), key=lambda i: max(images[i].shape[:2])):
        side = max(images[i].shape[:2])
        if batch and (len(batch) + 1) * side**2 > PREDICT_PIXELS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _cleaned(found_HWC: Float32Array) -> Float32Array:
    labels_HW = found_HWC.argmax(axis=2).astype(np.uint8)
    wanted_HW = clean_up(labels_HW)
    rows, columns = np.nonzero(labels_HW != wanted_HW)
    was, now = labels_HW[rows, columns], wanted_HW[rows, columns]
    found_HWC[rows, columns, was], found_HWC[rows, columns, now] = (
        found_HWC[rows, columns, now],
        found_HWC[rows, columns, was],
    )
    return found_HWC


def joint_loss(
    network: Smgnn, params: Params, batch: Batch, generator: torch.Generator
) -> dict[str, Tensor]:
    """Dice loss plus lambda times the metric loss (eq. 3.3), and both parts."""
    assert batch.masks_NPP is not None
    assert batch.targets_n is not None
    h_nD = network.embed(batch.features_n5, batch.adjacency_nn, batch.sizes_N)
    scores = network.classify(h_nD, batch.pixels_N3PP, batch.nodes_NPP)
    classes = torch.arange(NUM_CLASSES, device=scores.device)[None, :, None, None]
    dice = dice_loss(
        torch.softmax(scores, dim=1),
        batch.masks_NPP.unsqueeze(1) == classes,
        valid=(batch.nodes_NPP >= 0).unsqueeze(1),
    )
    if params.lambda_ == 0:
        return {"loss": dice, "dice_loss": dice}
    metric = superpixel_metric_loss(
        h_nD,
        batch.targets_n,
        a=network.a,
        b=network.b,
        target=params.metric_target,
        num_pairs=params.num_pairs,
        generator=generator,
    )
    return {"loss": dice + params.lambda_ * metric, "dice_loss": dice, "metric_loss": metric}


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains SMGNN on a fold; one step every `validate_every` epochs."""
    torch.manual_seed(context.seed)
    network = Smgnn(params).to(context.device, memory_format=torch.channels_last)
    model = SmgnnModel(network, params, context.device, context.cache)
    train = prepare_labelled(fold.train, params, context.cache)
    num_batches = -(-len(fold.train) // params.batch_size)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=params.lr, total_steps=params.epochs * num_batches + 1
    )

    def batches(generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(fold.train), generator=generator).tolist()
        for start in range(0, len(order), params.batch_size):
            chosen = order[start : start + params.batch_size]
            codes = random_dihedral(len(chosen), generator) if params.augment else None
            yield collate(train, chosen, context.device, codes)

    yield from fit_network(
        network,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=batches,
        loss=lambda batch, generator: joint_loss(network, params, batch, generator),
        validate=lambda: task.score(model, fold.val),
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        context=context,
    )


def size(params: Params) -> int:
    """Number of parameters; about 7,000 at the defaults, as in the paper."""
    return size_on_meta(lambda: Smgnn(params))


objective = Objective(
    task=task,
    params=Params,
    model=SmgnnModel,
    fit=fit,
    size=size,
    mutable=frozenset({"lr", "lambda"}),
    examples=(
        {"epochs": 2, "validate_every": 1, "scale": 36},
        {"epochs": 2, "validate_every": 1, "scale": 36, "conv": "gat", "lambda": 0},
        {"epochs": 1, "scale": 36, "superpixels": "slic", "metric_target": "paper"},
    ),
)
