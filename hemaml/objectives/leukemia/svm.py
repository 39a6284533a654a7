"""The classical baseline: a support vector machine on features of an image.

Features are standardised and, where asked for, reduced to principal components; both by the
training part alone. Probabilities come from a logistic curve through decisions on training images
that the machine had not seen: in a cross-validation inside the training part whose folds keep
groups, and copies of one image, whole. The machine that is kept has learned from all of it. The
curve has the class frequencies of the training part, whatever `class_weight` is.

What is saved are plain arrays; scikit-learn is not needed to predict.

Source: Kapadia and Swarnalatha, hybrid CNN and GNN, Table 1, which compares with an SVM and says
nothing of its features or its kernel.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, Float64Array, Frozen, Int64Array, UInt8Array
from hemaml.nn.backbones import Backbone, Loaded, architecture_of, load_backbone
from hemaml.nn.parameters import count_unbuilt
from hemaml.nn.weights import file_digest, state_digest
from hemaml.objectives.leukemia._features import Extractor, Kind, num_features
from hemaml.ops.kernel_machine import CONSTANT, DEGREE, Kernel, KernelMachine, Standardised
from hemaml.tasks import leukemia

CACHE_MB = 500
"""Of kernel values that the training keeps."""
LEAST_RISE = -1e-3
"""Slope of a logistic curve that says next to nothing; the exponent falls with the decision."""


class Params(Frozen):
    """What can be fixed or searched."""

    features: Kind = Field(default="classical", description="What an image becomes.")
    size: int = Field(
        default=128, ge=32, le=512, description="Side of the images in pixels; `pixels` takes 32."
    )
    backbone: Backbone = Field(default="resnet18", description="The network of `embeddings`.")
    weights: str = Field(
        default="imagenet",
        description="Of the backbone: none, imagenet, models:/name@alias, or a path.",
    )
    C: float = Field(default=1, gt=0, le=1e6, description="Weight of errors against the margin.")
    kernel: Kernel = Field(default="rbf", description="How two images are compared.")
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0, le=1e3)] = Field(
        default="scale",
        description="Of the kernel: a number, 1 / features (auto), or that over their variance.",
    )
    class_weight: Literal["balanced", "none"] = Field(
        default="balanced", description="balanced: errors weigh inversely to class frequency."
    )
    standardise: bool = Field(default=True, description="Each feature gets the deviation 1.")
    pca: int = Field(
        default=0, ge=0, le=4096, description="Principal components that are kept; 0: no PCA."
    )
    calibration_folds: int = Field(
        default=5, ge=2, le=20, description="Folds of the calibration at most."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.features == "embeddings":
            architecture_of(self.backbone).check_size(self.size)
        if self.pca > self.num_features:
            raise ValueError(
                f"`pca` must be at most the {self.num_features} features of {self.features!r}, "
                f"but got {self.pca}. Lower it, or set it to 0 for none."
            )
        return self

    @property
    def num_features(self) -> int:
        """D."""
        embedding = architecture_of(self.backbone).dim
        return num_features(self.features, size=self.size, embedding=embedding)


def size(params: Params) -> int:
    """Values that are known before training, for two classes; the backbone's included.

    Exact for a linear machine. How many images become support vectors of another one shows in
    training; here they are two, the fewest, so that this is a lower bound. `num_trainable` of the
    model is exact.
    """
    features = params.num_features
    kept = params.pca or features
    supports = 1 if params.kernel == "linear" else 2
    machine = 2 * features + params.pca * features + supports * (kept + 1) + 3
    if params.features != "embeddings":
        return machine
    return machine + count_unbuilt(lambda: architecture_of(params.backbone).build()[0])


class SvmModel:
    """A fitted machine with its features.

    Args:
        params: Its parameters.
        extractor: Makes features of images.
        machine: Classifies these.
        known: Images that will be predicted again and again, and their N x D features.
    """

    def __init__(
        self,
        params: Params,
        extractor: Extractor,
        machine: KernelMachine,
        known: tuple[Sequence[UInt8Array], Float32Array] | None = None,
    ) -> None:
        self.params = params
        self.machine = machine
        self._extractor = extractor
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Numbers that training found: all of the machine's, none of a backbone's."""
        return self.machine.num_values

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C class probabilities for each image, of any sizes."""
        return list(self.machine.probabilities(self._features(images)))

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`features`: N x P, as they enter the kernel."""
        values = self.machine.standardised(self._features(images))
        return {"features": values.astype(np.float32)}

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        from safetensors.torch import save_file

        arrays = self.machine.arrays().items()
        tensors = {f"svm.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays}
        if self._extractor.loaded is not None:
            state = self._extractor.loaded.network.state_dict().items()
            tensors |= {f"backbone.{k}": v.detach().cpu().contiguous() for k, v in state}
        save_file(tensors, folder / "model.safetensors")
        config = {"params": self.params.model_dump(mode="json"), "gamma": self.machine.gamma}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU."""
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_bytes())
        params = Params.model_validate(config["params"])
        tensors = load_file(folder / "model.safetensors")
        arrays = {k: v.numpy() for k, v in _below("svm.", tensors).items()}
        machine = KernelMachine.from_arrays(params.kernel, config["gamma"], arrays)
        loaded = None
        if params.features == "embeddings":
            loaded = _restored(params.backbone, _below("backbone.", tensors))
        return cls(params, Extractor(params.features, params.size, "cpu", loaded), machine)

    def _features(self, images: Sequence[UInt8Array]) -> Float32Array:
        if self._known is not None and images is self._known[0]:
            return self._known[1]
        return self._extractor(images)


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restored(name: Backbone, state: dict[str, torch.Tensor]) -> Loaded:
    architecture = architecture_of(name)
    with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
        network, _ = architecture.build()
    network.load_state_dict(state, assign=True)
    network = network.to(memory_format=torch.channels_last).eval()
    return Loaded(name, architecture, network, state_digest(state))


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold and yields once; see the module.

    Raises:
        ConfigError: The weights of a backbone cannot be had, or there are fewer training images
            than components.
        DataError: A class has too few training images, or groups, to be calibrated.
    """
    if context.state is not None:  # all was done before it was stopped
        return
    extractor = _extractor(params, context)
    train, val = (
        extractor.rows(part.images, part.contents(), context.cache)[:]
        for part in (fold.train, fold.val)
    )
    seed = derive_seed(context.seed, "svm")
    machine = train_machine(train, fold.train, params, seed=seed)
    model = SvmModel(params, extractor, machine, (fold.val.images, val))
    metrics = leukemia.score(model, fold.val) | {"support_vectors": float(len(machine.supports))}
    yield Step(0, metrics, model, lambda: {"done": True})


def files(params: Params) -> str:
    """Digest of the file that `weights` names, where embeddings need it."""
    return file_digest(params.weights) if params.features == "embeddings" else ""


def _extractor(params: Params, context: Context) -> Extractor:
    loaded = None
    if params.features == "embeddings":
        seed = derive_seed(context.seed, "weights")
        loaded = load_backbone(params.backbone, params.weights, context.registered, seed=seed)
    return Extractor(params.features, params.size, context.device, loaded)


def train_machine(
    features_ND: Float32Array, data: Dataset, params: Params, *, seed: int
) -> KernelMachine:
    """A calibrated machine for features of labelled images.

    Args:
        features_ND: N x D.
        data: The N images' labels, groups and classes.
        params: Kernel, weights and calibration.
        seed: Fixes the calibration's folds and the PCA.

    Raises:
        ConfigError: Fewer images than principal components.
        DataError: A class has too few images, or groups, to be calibrated.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    labels = np.asarray(data.labels)
    folds = calibration_folds(data, num=params.calibration_folds, seed=seed)
    standardised = _standardised(features_ND, params, seed)
    x_NP = standardised(features_ND)
    gamma = _gamma(params, x_NP)
    one = SVC(
        C=params.C,
        kernel=params.kernel,
        gamma=gamma,
        degree=DEGREE,
        coef0=CONSTANT,
        class_weight=None if params.class_weight == "none" else params.class_weight,
        cache_size=CACHE_MB,
    )
    calibrated = CalibratedClassifierCV(OneVsRestClassifier(one), cv=folds, ensemble=False)
    (fitted,) = calibrated.fit(x_NP, labels).calibrated_classifiers_
    supports, weights = _supports(fitted.estimator.estimators_, x_NP, params.kernel)
    slope, offset = _curves(fitted.calibrators, labels)
    return KernelMachine(
        kernel=params.kernel,
        gamma=gamma,
        standardised=standardised,
        supports=supports,
        weights=weights,
        bias=np.array([machine.intercept_[0] for machine in fitted.estimator.estimators_]),
        slope=slope,
        offset=offset,
    )


def calibration_folds(data: Dataset, *, num: int, seed: int) -> list[tuple[Int64Array, Int64Array]]:
    """Indices to learn from and to calibrate on, stratified; groups and copies are whole.

    Args:
        data: A training part.
        num: Folds at most; fewer where a class has not as many groups, or images without groups.
        seed: Fixes them.

    Raises:
        DataError: Not even two folds leave every class something to learn from.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, units = np.asarray(data.labels), np.asarray(data.groups or data.contents())
    counts = {c: len(set(units[labels == i])) for i, c in enumerate(data.classes)}
    for count in range(min(num, *counts.values()), 1, -1):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        folds = list(splitter.split(labels, labels, units))
        if all(len(set(labels[learned])) == len(counts) and len(t) for learned, t in folds):
            return folds
    kind = "groups" if data.groups else "distinct images"
    told = ", ".join(f"{name}: {count}" for name, count in counts.items())
    raise DataError(
        f"each class must have at least two {kind} to be learned and calibrated from, which two "
        f"folds can part, but the training part of {data.name!r} has {told}. "
        "Use more data, or another split."
    )


def _standardised(features_ND: Float32Array, params: Params, seed: int) -> Standardised:
    shift = features_ND.mean(axis=0, dtype=np.float64)
    scale = features_ND.std(axis=0, dtype=np.float64) if params.standardise else np.ones_like(shift)
    # A feature that is constant up to rounding says nothing, and dividing by 0 less.
    scale[scale <= 1e-7 * np.maximum(np.abs(shift), 1)] = 1
    if not params.pca:
        return Standardised(shift, scale, None)
    if params.pca > len(features_ND):
        raise ConfigError(
            f"`pca` must be at most the number of training images, {len(features_ND)}, but got "
            f"{params.pca}. Lower it, or set it to 0 for none."
        )
    from sklearn.decomposition import PCA

    plain = Standardised(shift, scale, None)(features_ND)
    axes = PCA(params.pca, random_state=seed).fit(plain).components_
    return Standardised(shift, scale, np.ascontiguousarray(axes))


def _gamma(params: Params, x_NP: Float64Array) -> float:
    if isinstance(params.gamma, float):
        return params.gamma
    variance = float(x_NP.var()) if params.gamma == "scale" else 1.0
    return 1.0 / float(x_NP.shape[1] * (variance or 1.0))


def _curves(calibrators: Sequence[Any], labels: Int64Array) -> tuple[Float64Array, Float64Array]:
    """K slopes and offsets of the logistic curves.

    On few images, decisions in a cross-validation can be worse than guessing, and a fitted curve
    then falls, which would turn all answers round. Such a curve is replaced by one at the share of
    the class, with just enough of a rise to keep the order of the decisions.
    """
    slope = np.array([curve.a_ for curve in calibrators])
    offset = np.array([curve.b_ for curve in calibrators])
    positive = [1] if len(calibrators) == 1 else range(len(calibrators))
    share = np.array([np.mean(labels == index) for index in positive])
    falls = slope > LEAST_RISE
    return np.where(falls, LEAST_RISE, slope), np.where(falls, np.log(1 / share - 1), offset)


def _supports(
    machines: Sequence[Any], x_NP: Float64Array, kernel: Kernel
) -> tuple[Float64Array, Float64Array]:
    """Support vectors of all machines, S x P, and their K x S coefficients."""
    if kernel == "linear":  # the sum over support vectors is one vector a machine
        return np.concatenate([machine.coef_ for machine in machines]), np.eye(len(machines))
    places = np.unique(np.concatenate([machine.support_ for machine in machines]))
    weights = np.zeros((len(machines), len(places)))
    for row, machine in zip(weights, machines, strict=True):
        row[np.searchsorted(places, machine.support_)] = machine.dual_coef_[0]
    return x_NP[places], weights


objective = Objective(
    task=leukemia.task,
    params=Params,
    model=SvmModel,
    fit=fit,
    size=size,
    files=files,
    examples=(
        {"size": 32},
        {"features": "hog", "size": 48, "kernel": "linear", "pca": 4},
        {"features": "pixels", "kernel": "poly", "standardise": False, "class_weight": "none"},
        {"features": "embeddings", "weights": "none", "size": 32, "gamma": 0.01},
    ),
)
