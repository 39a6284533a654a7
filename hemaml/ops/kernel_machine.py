"""Kernel classifiers as plain arrays: what a support vector machine learned, without its library.

A machine of two classes has one decision, for class 1; one of more has a decision a class, each
against the rest. Features are centred, scaled and turned onto principal axes; a decision is a
weighted sum of kernels with the support vectors, and a logistic curve makes it a probability
(Platt 1999). With more than two classes these are divided by their sum.

Letters: N items, D features, P of them after the axes, S support vectors, K decisions, C classes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemaml.core.types import Float32Array, Float64Array

Kernel = Literal["linear", "rbf", "poly"]
DEGREE, CONSTANT = 3, 1.0
"""Of the polynomial kernel (gamma x.y + CONSTANT) ** DEGREE."""


@dataclass(frozen=True, slots=True)
class Standardised:
    """How features enter the kernel.

    Attributes:
        shift: D values that are subtracted.
        scale: D values that are divided by, none of them 0.
        axes: P x D directions that features are projected on, or None: all of them as they are.
    """

    shift: Float64Array
    scale: Float64Array
    axes: Float64Array | None

    def __call__(self, features_ND: Float32Array) -> Float64Array:
        """N x D features to N x P."""
        values = (features_ND - self.shift) / self.scale
        return values if self.axes is None else values @ self.axes.T


@dataclass(frozen=True, slots=True)
class KernelMachine:
    """A fitted classifier of feature vectors.

    Attributes:
        kernel: x.y, exp(-gamma |x - y|^2), or the polynomial.
        gamma: Of the kernel; the linear one has none.
        standardised: What features go through first.
        supports: S x P support vectors; of a linear machine K rows, the weights of its features.
        weights: K x S dual coefficients.
        bias: K.
        slope: K slopes of the logistic curves.
        offset: K offsets of these: p = 1 / (1 + exp(slope * decision + offset)).
    """

    kernel: Kernel
    gamma: float
    standardised: Standardised
    supports: Float64Array
    weights: Float64Array
    bias: Float64Array
    slope: Float64Array
    offset: Float64Array

    @property
    def num_values(self) -> int:
        """Numbers that were learned."""
        return sum(array.size for array in self.arrays().values())

    def arrays(self) -> dict[str, Float64Array]:
        """All arrays by name."""
        own = {
            "shift": self.standardised.shift,
            "scale": self.standardised.scale,
            "supports": self.supports,
            "weights": self.weights,
            "bias": self.bias,
            "slope": self.slope,
            "offset": self.offset,
        }
        axes = self.standardised.axes
        return own if axes is None else {**own, "axes": axes}

    @classmethod
    def from_arrays(
        cls, kernel: Kernel, gamma: float, arrays: dict[str, Float64Array]
    ) -> "KernelMachine":
        """The machine whose `arrays` these are."""
        rest = dict(arrays)
        standardised = Standardised(rest.pop("shift"), rest.pop("scale"), rest.pop("axes", None))
        return cls(kernel, gamma, standardised, **rest)

    def decisions(self, features_ND: Float32Array) -> Float64Array:
        """N x K decisions."""
        x_NP = self.standardised(features_ND)
        values: Float64Array = self._kernel(x_NP) @ self.weights.T + self.bias
        return values

    def seen(self, features_ND: Float32Array) -> Float32Array:
        """N x P features as they enter the kernel."""
        return self.standardised(features_ND).astype(np.float32)

    def probabilities(self, features_ND: Float32Array) -> Float32Array:
        """N x C probabilities; equal ones where no class has any."""
        exponent_NK = self.slope * self.decisions(features_ND) + self.offset
        p_NK = 0.5 * (1 - np.tanh(exponent_NK / 2))  # 1 / (1 + exp(e)), which never overflows
        if p_NK.shape[1] == 1:
            return np.hstack([1 - p_NK, p_NK]).astype(np.float32)
        total_N1 = p_NK.sum(axis=1, keepdims=True)
        even = np.full_like(p_NK, 1 / p_NK.shape[1])
        return np.where(total_N1 > 0, p_NK / np.where(total_N1 > 0, total_N1, 1), even).astype(
            np.float32
        )

    def _kernel(self, x_NP: Float64Array) -> Float64Array:
        products_NS: Float64Array = x_NP @ self.supports.T
        if self.kernel == "linear":
            return products_NS
        if self.kernel == "poly":
            return np.asarray((self.gamma * products_NS + CONSTANT) ** DEGREE)
        squares = (x_NP**2).sum(axis=1)[:, None] + (self.supports**2).sum(axis=1)
        return np.asarray(np.exp(-self.gamma * np.maximum(squares - 2 * products_NS, 0)))
