"""Training of support vector machines on features of images, calibrated, and kept as plain arrays.

Features are standardised and, where asked for, reduced to principal components; both by the
training part alone. Probabilities come from logistic curves through decisions on training images
that the machine had not seen: in a cross-validation inside the training part whose folds keep
groups, and copies of one image, whole. The machine that is kept has learned from all of it.

Each class has a curve of its own, or all share one. The first needs two images of every class; the
second keeps the order of the decisions, so it suits classes that have hardly any.

Letters: N images, D features, P of them after the axes, K decisions.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, DataError
from hemaml.core.types import Float32Array, Float64Array, Frozen, Int64Array
from hemaml.data.assignment import units_of
from hemaml.ops.kernel_machine import CONSTANT, DEGREE, Kernel, KernelMachine, Standardised

CACHE_MB = 500
"""Of kernel values that the training keeps."""
LEAST_RISE = -1e-3
"""Slope of a logistic curve that says next to nothing; the exponent falls with the decision."""


NEVER = -1e6
"""Decision for a class that the training part lacks."""


class MachineParams(Frozen):
    """What can be fixed or searched of every machine."""

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


def train_machine(
    features_ND: Float32Array, data: Dataset, params: MachineParams, *, seed: int
) -> KernelMachine:
    """A calibrated machine for features of labelled images; each class has its curve.

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

    labels = np.asarray(data.labels)
    folds = calibration_folds(data, num=params.calibration_folds, seed=seed)
    standardised = _standardised(features_ND, params, seed)
    x_NP = standardised(features_ND)
    gamma = _gamma(params, x_NP)
    one = OneVsRestClassifier(_machine(params, gamma))
    calibrated = CalibratedClassifierCV(one, cv=folds, ensemble=False)
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


def train_rare(
    features_ND: Float32Array, data: Dataset, params: MachineParams, *, seed: int
) -> KernelMachine:
    """A machine against the rest for each class, with one curve for all decisions.

    A class may have one image, which is then only learned from, or none, and is never predicted.

    Args:
        features_ND: N x D.
        data: The N images' labels, groups and classes.
        params: Kernel, weights and calibration.
        seed: Fixes the calibration's folds and the PCA.

    Raises:
        ConfigError: Fewer images than principal components.
        DataError: All images are of one class.
    """
    labels, num_classes = np.asarray(data.labels), len(data.classes)
    if len(set(data.labels)) < 2:
        raise DataError(
            f"a machine needs images of two classes, but the training part of {data.name!r} has "
            f"only {data.classes[labels[0]]}. Use more data, or another split."
        )
    standardised = _standardised(features_ND, params, seed)
    x_NP = standardised(features_ND)
    gamma = _gamma(params, x_NP)

    def learned(rows: Int64Array) -> dict[int, Any]:
        present = sorted(set(labels[rows].tolist()))
        return {c: _machine(params, gamma).fit(x_NP[rows], labels[rows] == c) for c in present}

    decisions, truths = [], []
    for rows, asked in _folds_of_rare(data, params.calibration_folds, seed):
        for c, machine in learned(rows).items():
            decisions.append(machine.decision_function(x_NP[asked]))
            truths.append(labels[asked] == c)
    slope, offset = _one_curve(decisions, truths)
    machines = learned(np.arange(len(labels)))
    supports, weights = _supports(list(machines.values()), x_NP, params.kernel)
    places = list(machines)
    all_weights = np.zeros((num_classes, weights.shape[1]))
    all_weights[places] = weights
    bias = np.full(num_classes, NEVER)
    bias[places] = [machine.intercept_[0] for machine in machines.values()]
    return KernelMachine(
        kernel=params.kernel,
        gamma=gamma,
        standardised=standardised,
        supports=supports,
        weights=all_weights,
        bias=bias,
        slope=np.full(num_classes, slope),
        offset=np.full(num_classes, offset),
    )


def _folds_of_rare(data: Dataset, num: int, seed: int) -> list[tuple[Int64Array, Int64Array]]:
    """Indices to learn from and to be asked; units are whole, and each class is always learned.

    The units of a class (by the first of its items) take the folds in turn. A unit that alone has a
    class is in none, and a fold that would take one away is left out.
    """
    labels, units = np.asarray(data.labels), _units(data)
    order = np.random.default_rng(seed).permutation(len(labels))
    fold_of: dict[str, int] = {}
    for c in sorted(set(data.labels)):
        fresh = dict.fromkeys(units[i] for i in order if labels[i] == c and units[i] not in fold_of)
        alone = len(set(units[labels == c])) == 1
        fold_of |= {unit: -1 if alone else turn % num for turn, unit in enumerate(fresh)}
    fold_N = np.array([fold_of[unit] for unit in units])
    parts = [(np.flatnonzero(fold_N != f), np.flatnonzero(fold_N == f)) for f in range(num)]
    return [
        (rest, asked)
        for rest, asked in parts
        if len(asked) and set(labels[rest]) == set(data.labels)
    ]


def _one_curve(decisions: Sequence[Float64Array], truths: Sequence[Any]) -> tuple[float, float]:
    """Slope and offset of the logistic curve through all decisions; a plain one without any."""
    from sklearn.linear_model import LogisticRegression

    if not decisions:
        return -1.0, 0.0
    curve = LogisticRegression().fit(np.concatenate(decisions)[:, None], np.concatenate(truths))
    return min(-float(curve.coef_[0, 0]), LEAST_RISE), -float(curve.intercept_[0])


def _machine(params: MachineParams, gamma: float) -> Any:
    from sklearn.svm import SVC

    return SVC(
        C=params.C,
        kernel=params.kernel,
        gamma=gamma,
        degree=DEGREE,
        coef0=CONSTANT,
        class_weight=None if params.class_weight == "none" else params.class_weight,
        cache_size=CACHE_MB,
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

    labels, units = np.asarray(data.labels), _units(data)
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


def _units(data: Dataset) -> NDArray[np.str_]:
    """N names of what stays together: the group, or groups that share an image; else the image."""
    names = np.asarray(data.groups or data.contents())
    if data.groups:
        for unit in units_of(data, grouped=True):
            names[list(unit.items)] = min(names[list(unit.items)])
    return names


def _standardised(features_ND: Float32Array, params: MachineParams, seed: int) -> Standardised:
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


def _gamma(params: MachineParams, x_NP: Float64Array) -> float:
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
