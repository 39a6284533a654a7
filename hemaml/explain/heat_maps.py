"""Heat maps of where in an image a convolutional classifier sees its class, by pytorch-grad-cam.

The library runs the whole network with gradients for every map. Only what lies above the mapped
stage needs them: here the stages below run once without any, their maps become a leaf of their own,
and the library goes back through mean and head alone. That is faster, gives the same maps, and
works for a network that is frozen throughout.

The mapped stage is the last one unless another is named: `layer4` of each backbone, what the head
averages. That is behind its last activation: of DenseNet-121 behind the ReLU after `norm5`, of
EfficientNet-Lite0 behind `conv_head`. Maps of lower stages are finer and less about the class.

Shape suffixes: N views, C channels, S side of a view, H and W sides of an image.

Sources: R. Selvaraju et al.: Grad-CAM. ICCV 2017. A. Chattopadhay et al.: Grad-CAM++. WACV 2018.
P.-T. Jiang et al.: LayerCAM. IEEE TIP 2021. M. Muhammad, M. Yeasin: Eigen-CAM. IJCNN 2020.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.errors import UnknownName
from hemaml.core.types import BoolArray, Float32Array, UInt8Array
from hemaml.tasks._classification import Explainable, View

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hemaml.nn.classifier import ImageClassifier

METHODS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}
"""Names of methods and of their classes in the library; `eigencam` does not depend on the class."""
USUAL = "gradcam++"
LAYER = "layer4"
"""The stage that is mapped unless another is named: the last one of each backbone."""
VIEWS_AT_ONCE = 32
"""In one batch through the network."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What a classifier says of an image, and where it sees that.

    Attributes:
        image: H x W x 3.
        probabilities: C, the mean over the views.
        target: Index of the class that the map explains.
        heat: H x W, from 0 to 1.
        shown: H x W, which pixels a view shows. Of all others the model knows nothing; their heat
            is 0.
    """

    image: UInt8Array
    probabilities: Float32Array
    target: int
    heat: Float32Array
    shown: BoolArray

    @property
    def said(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())


def explained(
    model: Explainable,
    images: Iterable[UInt8Array],
    *,
    method: str = USUAL,
    layer: str = LAYER,
    target: int | None = None,
) -> Iterator[Explained]:
    """Each image with the heat map of its most probable class, in order, one at a time.

    The map of each view is scaled to the rectangle that the view shows, and counts as much as the
    view makes its class probable: each map by itself ends at 1, even of a tile without tissue.
    Where views overlap, the map is their mean, and where there is none, it is 0.

    Args:
        model: Its network is evaluated where its weights are.
        images: Of any sizes.
        method: A name in `METHODS`.
        layer: Name of the mapped stage.
        target: Index of another class that is to be mapped.

    Raises:
        UnknownName: No such method or stage.
    """
    check_names(model.network, method, layer)
    for image in images:
        views = model.views(image)
        pixels = np.stack([view.pixels for view in views])
        maps, of_views = seen(model.network, model.normalise, pixels, layer=layer)
        probabilities = of_views.mean(axis=0)
        mapped = int(probabilities.argmax()) if target is None else target
        heats = class_maps(model.network, maps, mapped, method=method, layer=layer)
        heat = merged(image, views, heats, of_views[:, mapped])
        yield Explained(image, probabilities, mapped, heat, covered(image, views))


def check_names(network: "ImageClassifier", method: str, layer: str) -> None:
    """Raises `UnknownName` where a method or the name of a stage does not exist."""
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    stages = [name for name, _ in network.backbone.named_children()]
    if layer not in stages:
        raise UnknownName("layer", layer, stages)


def seen(
    network: "ImageClassifier",
    normalise: Callable[["Tensor"], "Tensor"],
    pixels_NSSC: UInt8Array,
    *,
    layer: str = LAYER,
) -> tuple["Tensor", Float32Array]:
    """The maps that a stage makes of N views, and N x C probabilities."""
    import torch

    below, above = _cut(network.eval(), layer)
    device = next(network.parameters()).device
    maps, logits = [], []
    # Not inference mode: gradients can never be taken with respect to its tensors.
    with torch.no_grad():
        for part in np.array_split(pixels_NSSC, -(-len(pixels_NSSC) // VIEWS_AT_ONCE)):
            maps.append(below(normalise(torch.from_numpy(part).to(device))))
            logits.append(above(maps[-1]))
    probabilities = torch.cat(logits).float().softmax(dim=1)
    return torch.cat(maps), np.asarray(probabilities.cpu().numpy())


def class_maps(
    network: "ImageClassifier",
    maps_NCHW: "Tensor",
    target: int,
    *,
    method: str = USUAL,
    layer: str = LAYER,
) -> Float32Array:
    """What the library makes of a stage's maps: N x H x W, each from 0 to 1.

    Args:
        network: Left as it is, but without gradients.
        maps_NCHW: What `seen` gives.
        target: Index of the class.
        method: A name in `METHODS`.
        layer: The stage that gave the maps.
    """
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    above = _cut(network.eval(), layer)[1]
    leaf = maps_NCHW.detach().requires_grad_()
    with _frozen(above):
        cam = getattr(pytorch_grad_cam, METHODS[method])(above, [above[0]])
        try:
            found: Float32Array = cam(leaf, [ClassifierOutputTarget(target)] * len(leaf))
        finally:  # as a context manager it would swallow errors
            cam.activations_and_grads.release()
    return found


def _cut(network: "ImageClassifier", layer: str) -> tuple["nn.Sequential", "nn.Sequential"]:
    """The stages up to one, and what is above it; that begins with a place for the library's hook.

    Without dropout, which evaluation leaves out.
    """
    from torch import nn

    names = [name for name, _ in network.backbone.named_children()]
    stages, end = list(network.backbone), names.index(layer) + 1
    top = (nn.AdaptiveAvgPool2d(1), nn.Flatten(1), network.head)
    return nn.Sequential(*stages[:end]), nn.Sequential(nn.Identity(), *stages[end:], *top)


@contextmanager
def _frozen(module: "nn.Module") -> Iterator[None]:
    """No parameter gathers a gradient: only that of the maps is asked for."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def merged(
    image: UInt8Array, views: Sequence[View], heats: Float32Array, shares: Float32Array
) -> Float32Array:
    """One map of an image from those of its N views: H x W, its hottest place 1.

    Args:
        image: H x W x 3.
        views: What the network saw of it.
        heats: N maps, each from 0 to 1.
        shares: N weights of the views.
    """
    total = np.zeros(image.shape[:2], dtype=np.float32)
    count = np.zeros_like(total)
    for view, heat, share in zip(views, heats, shares, strict=True):
        total[place_of(view)] += share * scaled_map(heat, view.height, view.width)
        count[place_of(view)] += 1
    mean = total / np.maximum(count, 1)
    return np.asarray(mean / (mean.max() or 1))


def covered(image: UInt8Array, views: Sequence[View]) -> BoolArray:
    """Which pixels of an image its views show: H x W."""
    found = np.zeros(image.shape[:2], dtype=bool)
    for view in views:
        found[place_of(view)] = True
    return found


def place_of(view: View) -> tuple[slice, slice]:
    """Rows and columns of an image that a view shows."""
    return slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)


def scaled_map(heat: Float32Array, height: int, width: int) -> Float32Array:
    """A map at another size, from 0 to 1 again as the library leaves its own."""
    found = resized_map(heat, height, width)
    found = found - found.min()
    return np.asarray(found / (found.max() + 1e-7))


def resized_map(heat: Float32Array, height: int, width: int) -> Float32Array:
    """A map at another size, bilinear."""
    import torch
    from torch.nn import functional

    given = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))[None, None]
    found = functional.interpolate(given, (height, width), mode="bilinear", align_corners=False)
    return np.asarray(found[0, 0].numpy())
