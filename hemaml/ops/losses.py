"""Losses of the superpixel-metric network: metric learning on nodes, Dice on pixels.

N images, C classes, H x W pixels; n nodes with embeddings of d dimensions.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from hemaml.core.errors import ConfigError

MetricTarget = Literal["paper", "similarity"]


def superpixel_metric_loss(
    embeddings: Tensor,
    targets: Tensor,
    *,
    a: Tensor,
    b: Tensor,
    target: MetricTarget,
    num_pairs: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Squared error between the similarity of two embeddings and what their labels ask for.

    Anchors and references are two independent samples, without repeats, of min(num_pairs, n)
    nodes out of all images of the batch. Every anchor is compared with every reference.

    Args:
        embeddings: n x d, the nodes of all images, padding left out.
        targets: n labels in 0..1 (`node_targets`).
        a: Learnable scale of the cosine, scalar.
        b: Learnable offset of the cosine, scalar.
        target: `paper` asks for (y_i + y_j) / 2, as printed; it is small for two background
            nodes and large for two nucleus nodes. `similarity` asks for 1 - |y_i - y_j|, which
            is large for any two nodes of one class.
        num_pairs: Size of each sample, at least 1.
        generator: Draws the samples, None for torch's global one; fixes them by its seed.

    Returns:
        Scalar, the mean over the matrix of pairs.

    Raises:
        ConfigError: `target` or `num_pairs` is not one of the allowed values.

    Source: eq. 2.5, 2.6 and 2.7 of the SMGNN paper.
    """
    if num_pairs < 1:
        raise ConfigError(f"`num_pairs >= 1` must hold, but got {num_pairs}.")
    if target not in ("paper", "similarity"):
        raise ConfigError(f"`target` must be 'paper' or 'similarity', but got {target!r}.")
    assert len(embeddings) == len(targets) > 0
    anchors = _sample(len(embeddings), num_pairs, generator, embeddings.device)
    references = _sample(len(embeddings), num_pairs, generator, embeddings.device)

    unit = normalize(embeddings, dim=1)
    similarity = a * (unit[anchors] @ unit[references].T) + b
    y_anchor, y_reference = targets[anchors, None], targets[None, references]
    if target == "paper":
        wanted = (y_anchor + y_reference) / 2
    else:
        wanted = 1 - (y_anchor - y_reference).abs()
    return mse_loss(similarity, wanted.to(similarity.dtype))


def dice_loss(
    probabilities: Tensor,
    one_hot: Tensor,
    *,
    valid: Tensor | None = None,
    smooth: float = 1.0,
) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes.

    For each class, sums run over all pixels of all images of the batch:

        1 - (2 * sum(p * g) + smooth) / (sum(p) + sum(g) + smooth).

    The printed loss is the negative Dice coefficient; this one is larger by the constant 1, so
    that a perfect prediction has loss 0, and the gradients are the same.

    Args:
        probabilities: N x C x H x W, predicted probabilities p.
        one_hot: N x C x H x W, ground truth g, 0 or 1.
        valid: N x 1 x H x W, 1 for pixels of the image and 0 for padding, which counts nowhere;
            None if nothing is padded.
        smooth: Pixels added to both parts of the fraction; a class found in neither has loss 0.

    Returns:
        Scalar in 0..1.

    Source: eq. 3.2 of the SMGNN paper.
    """
    assert probabilities.shape == one_hot.shape
    p, g = probabilities, one_hot.to(probabilities.dtype)
    if valid is not None:
        # Not a product: padding may hold NaN, and 0 * NaN is NaN.
        p = torch.where(valid.bool(), p, 0)
        g = torch.where(valid.bool(), g, 0)
    shared_C = (p * g).sum(dim=(0, 2, 3))
    sizes_C = p.sum(dim=(0, 2, 3)) + g.sum(dim=(0, 2, 3))
    return (1 - (2 * shared_C + smooth) / (sizes_C + smooth)).mean()


def _sample(
    count: int, size: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """`min(size, count)` different indices below `count`, in random order."""
    # Drawn where the generator lives: one on the CPU gives the same samples for every device.
    drawn_on = generator.device if generator is not None else device
    order = torch.randperm(count, generator=generator, device=drawn_on)
    return order[:size].to(device)
