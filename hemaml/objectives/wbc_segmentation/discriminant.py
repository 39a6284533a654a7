"""Superpixels classified by colour and place alone, in closed form: the floor of graph methods.

Each class is a normal distribution of mean colours and positions of superpixels (quadratic
discriminant analysis), fitted without a network, a graph or an epoch. Beside the scores stands what
superpixels of this size could carry at most, `iou_reconstruction` of eq. 2.2 of the SMGNN paper
(Jiang et al. 2024), over `num_superpixels` an image: figure 6 of the paper.

Source: T. Hastie, R. Tibshirani, J. Friedman: The elements of statistical learning (2009), 4.3.
"""

from collections.abc import Iterator
from statistics import fmean

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from hemaml.core.cache import array_digest
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.task import Fold
from hemaml.nn.parameters import count_unbuilt
from hemaml.nn.superpixel_network import NUM_FEATURES, RegionBatch
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES
from hemaml.objectives.wbc_segmentation._regions import SuperpixelParams, regions
from hemaml.objectives.wbc_segmentation.gnn_only import node_classes
from hemaml.objectives.wbc_segmentation.smgnn import SmgnnModel, batch_of, ceiling, learnable
from hemaml.tasks import wbc_segmentation


class Discriminant(nn.Module):
    """A normal distribution of features for each class; by features K x F to logits K x C.

    Attributes:
        log_prior: C logarithms of the shares of the classes.
        means: C x F.
        whitening: C x F x F lower triangles that make a class's features independent, of
            variance 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_prior = nn.Parameter(torch.zeros(NUM_CLASSES))
        self.means = nn.Parameter(torch.zeros(NUM_CLASSES, NUM_FEATURES))
        eye = torch.eye(NUM_FEATURES).expand(NUM_CLASSES, -1, -1)
        self.whitening = nn.Parameter(eye.clone())

    @torch.no_grad()
    def learn(self, features_KF: Tensor, classes_K: Tensor, shrinkage: float) -> None:
        """Sets all parameters; a class without superpixels keeps the distribution of all."""
        features_KF = features_KF.double()
        whole_FF = torch.cov(features_KF.t())
        for index in range(NUM_CLASSES):
            own_KF = features_KF[classes_K == index]
            known = len(own_KF) > 1
            covariance_FF = torch.cov(own_KF.t()) if known else whole_FF
            covariance_FF = (1 - shrinkage) * covariance_FF + shrinkage * whole_FF
            lower_FF = torch.linalg.cholesky(covariance_FF + 1e-6 * torch.eye(NUM_FEATURES))
            self.whitening[index] = torch.linalg.inv(lower_FF).float()
            self.means[index] = (own_KF if known else features_KF).mean(dim=0).float()
            self.log_prior[index] = torch.log(torch.tensor((len(own_KF) + 1) / len(features_KF)))

    def forward(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Logits N x C x G x G, 0 at padding, and the features K x F."""
        away_CKF = (batch.features - self.means[:, None]) @ self.whitening.transpose(1, 2)
        volume_C = self.whitening.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        logits_CK = (self.log_prior + volume_C)[:, None] - away_CKF.square().sum(dim=2) / 2
        painted_NGGC = pad(logits_CK.t(), (0, 0, 0, 1))[batch.labels]
        return painted_NGGC.permute(0, 3, 1, 2), batch.features


class Params(SuperpixelParams):
    """What can be fixed or searched."""

    shrinkage: float = Field(
        default=0.01, ge=0, le=1, description="Share of all superpixels' covariance in a class's."
    )

    def build(self) -> Discriminant:
        """Not fitted; draws nothing."""
        return Discriminant()


def size(params: Params) -> int:
    """Numbers that describe the distributions."""
    return count_unbuilt(params.build)


class DiscriminantModel(SmgnnModel):
    """Fitted distributions."""

    params_class = Params


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Fits the distributions and yields once; see the module."""
    if context.state is not None:  # all was done before it was stopped
        return
    how, cache = params.oversegmentation, context.cache
    batches = [
        batch_of([item], stretch=params.colour_stretch, codes=None)
        for item in learnable(fold.train, how, cache)
    ]
    network = params.build()
    network.learn(
        torch.cat([batch.regions.features for batch in batches]),
        torch.cat([node_classes(batch, "majority") for batch in batches]),
        params.shrinkage,
    )
    known = {array_digest(image): regions(image, how, cache) for image in fold.val.images}
    model = DiscriminantModel(params, network.to(context.device), known)
    metrics = {
        **wbc_segmentation.score(model, fold.val),
        "iou_reconstruction": ceiling(fold.val, known),
        "num_superpixels": fmean(
            len(known[array_digest(image)].features) for image in fold.val.images
        ),
    }
    yield Step(0, metrics, model, lambda: {"done": True})


objective = Objective(
    task=wbc_segmentation.task,
    params=Params,
    model=DiscriminantModel,
    fit=fit,
    size=size,
    examples=({}, {"superpixels": "slic", "scale": 25, "colour_stretch": False}),
)
