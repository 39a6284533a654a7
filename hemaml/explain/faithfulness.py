"""How far the heat maps of a classifier can be believed, in numbers, on some of its images.

- `explain/deletion`: the hottest pixels of an image are replaced by its mean colour, a step at a
  time; area below the probability of the class, which falls fast where the map is right. Low is
  good.
- `explain/insertion`: the same pixels come back to the blurred image; high is good.
- `explain/nuclei_pointing`: share of the images whose hottest pixel lies on a nucleus, and
- `explain/nuclei_energy`: share of the heat that does; beside
- `explain/nuclei_area`, which both are by chance.
- `explain/sanity_similarity`: rank correlation with the map of a network of the same shape and
  random weights; a map that learning does not change explains nothing. Low is good.
- `explain/images`: how many images the numbers of nuclei and the similarity rest on.

Maps are those of the most probable class, whatever the truth. Areas depend on how sure a classifier
is, so compare them beside its scores. Only pixels that a view shows count: all others are 0 in
every map, which would pass for agreement of two maps and for heat that keeps off nuclei.

The cost is bounded. Nuclei and similarity, for which a view is seen twice, rest on `MOST_IMAGES`
images at most. Deletion and insertion, for which it is seen 2 x (`STEPS` + 1) times, rest on as
many of these as have `MOST_VIEWS` views, or on one of each class if that is more.

Shape suffixes: H and W sides of an image, V views, S their side, K steps.
"""

import copy
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.explain.contact_sheet import sample
from hemaml.explain.heat_maps import (
    Explained,
    class_maps,
    explained,
    merged,
    place_of,
    resized_map,
    seen,
)
from hemaml.ops.heat_scores import (
    area_under,
    blurred,
    energy_inside,
    hottest,
    nuclei_mask,
    pointing,
    rank_similarity,
)
from hemaml.tasks._classification import Explainable, View

if TYPE_CHECKING:
    from hemaml.nn.classifier import ImageClassifier

MOST_IMAGES = 64
"""Whose maps are measured."""
MOST_VIEWS = 16
"""Of those of them together that are seen step by step."""
STEPS = 10
"""From the whole image to none of it, and back: a tenth of its pixels each."""
SEED = 0
"""Of random weights, and of the order of pixels that are equally hot."""


def measured(model: Explainable, data: Dataset, device: str = "cpu") -> dict[str, float]:
    """The numbers of the module, means over images; see there for how many each rests on.

    Args:
        model: Its network goes to the device.
        data: Images with labels; the measured ones are spread over classes and set.
        device: Where they are computed.
    """
    part = data.subset(sample(data, num=MOST_IMAGES))
    strange = randomised(model.network.cpu(), SEED).to(
        device
    )  # the CPU's draw, whatever the device
    model.network.to(device)
    few, maps, areas = chosen(model, part), [], []
    for index, found in enumerate(explained(model, part.images)):
        views = model.views(found.image)
        maps.append(_of_map(model, strange, found))
        if index in few:
            areas.append(_of_curves(model, views, found))
    means = {name: fmean(row[name] for row in rows) for rows in (areas, maps) for name in rows[0]}
    return {f"explain/{name}": value for name, value in {**means, "images": len(part)}.items()}


def chosen(model: Explainable, data: Dataset) -> list[int]:
    """Indices of the images that are seen step by step: each class at least once.

    They are as many as have `MOST_VIEWS` views; all are taken to have as many as the first.
    """
    views = len(model.views(data.images[0]))
    return sample(data, num=max(MOST_VIEWS // views, len(set(data.labels))))


def _of_map(model: Explainable, strange: "ImageClassifier", found: Explained) -> dict[str, float]:
    heat, nuclei = found.heat[found.shown], nuclei_mask(found.image)[found.shown]
    other = heat_of(model, strange, found.image, found.target)
    return {
        "nuclei_pointing": pointing(heat, nuclei),
        "nuclei_energy": energy_inside(heat, nuclei),
        "nuclei_area": float(nuclei.mean()),
        "sanity_similarity": similarity(found, other),
    }


def _of_curves(model: Explainable, views: Sequence[View], found: Explained) -> dict[str, float]:
    return {
        "deletion": area_under(curve(model, views, found, inserted=False)),
        "insertion": area_under(curve(model, views, found, inserted=True)),
    }


def similarity(found: Explained, other_HW: Float32Array) -> float:
    """Rank correlation of an image's map and another one, on the pixels that a view shows."""
    return rank_similarity(found.heat[found.shown], other_HW[found.shown])


def curve(
    model: Explainable, views: Sequence[View], found: Explained, *, inserted: bool
) -> Float32Array:
    """The probability of the map's class while the hottest pixels go, or come back: K + 1 values.

    Args:
        model: Sees all steps of a view in batches.
        views: Of the image.
        found: Its map.
        inserted: Whether the pixels come back to the blurred image, rather than giving way to its
            mean colour.
    """
    heat_VSS = np.stack([_heat_of_view(found.heat, view) for view in views])
    pixels = np.stack([view.pixels for view in views])
    if inserted:
        removed = np.stack([blurred(view.pixels) for view in views])
    else:
        mean = pixels.mean(axis=(0, 1, 2)).round().astype(np.uint8)
        removed = np.broadcast_to(mean, pixels.shape)
    first, then = (removed, pixels) if inserted else (pixels, removed)
    hot = hottest(heat_VSS, STEPS, SEED)[..., None]
    states = np.where(hot, then, first).reshape(-1, *pixels.shape[1:])
    _, probabilities = seen(model.network, model.normalise, states)
    return np.asarray(probabilities[:, found.target].reshape(len(hot), len(views)).mean(axis=1))


def _heat_of_view(heat: Float32Array, view: View) -> Float32Array:
    """The part of an image's map that a view shows, at the view's size."""
    return resized_map(heat[place_of(view)], *view.pixels.shape[:2])


def heat_of(
    model: Explainable, network: "ImageClassifier", image: UInt8Array, target: int
) -> Float32Array:
    """The map of a class by another network of the same shape, seen through the model's views."""
    views = model.views(image)
    pixels = np.stack([view.pixels for view in views])
    maps, shares = seen(network, model.normalise, pixels)
    return merged(image, views, class_maps(network, maps, target), shares[:, target])


def randomised(
    network: "ImageClassifier", seed: int, *, stages: int | None = None
) -> "ImageClassifier":
    """A copy whose head, and topmost stages, have weights drawn anew.

    Args:
        network: Left as it is.
        seed: Of the draw.
        stages: That are drawn, from the head down; default: all. 0 draws the head alone.
    """
    import torch
    from torch import nn

    other = copy.deepcopy(network)
    backbone = list(other.backbone)
    kept = 0 if stages is None else len(backbone) - stages
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in (other.head, *backbone[kept:]):
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                    module.reset_parameters()
    return other
