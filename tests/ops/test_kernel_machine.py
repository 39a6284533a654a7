import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from hemaml.ops.kernel_machine import CONSTANT, DEGREE, KernelMachine, Standardised

RNG = np.random.default_rng(0)
PLAIN = Standardised(np.zeros(5), np.ones(5), None)


def machine(kernel="rbf", **changes):
    values = {
        "kernel": kernel,
        "gamma": 0.3,
        "standardised": PLAIN,
        "supports": RNG.normal(size=(4, 5)),
        "weights": RNG.normal(size=(1, 4)),
        "bias": np.array([0.1]),
        "slope": np.array([-2.0]),
        "offset": np.array([0.5]),
    }
    return KernelMachine(**(values | changes))


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly"])
def test_decisions_are_those_of_scikit_learn(kernel):
    x, labels = RNG.normal(size=(60, 5)), RNG.integers(0, 2, 60)
    svc = SVC(kernel=kernel, gamma=0.3, degree=DEGREE, coef0=CONSTANT).fit(x, labels)
    mine = machine(
        kernel, supports=svc.support_vectors_, weights=svc.dual_coef_, bias=svc.intercept_
    )
    new = RNG.normal(size=(30, 5))
    np.testing.assert_allclose(mine.decisions(new)[:, 0], svc.decision_function(new), atol=1e-9)


def test_features_are_standardised_and_turned_first():
    axes = np.linalg.qr(RNG.normal(size=(5, 5)))[0][:3]
    shift, scale = RNG.normal(size=5), RNG.uniform(1, 2, 5)
    mine = machine(standardised=Standardised(shift, scale, axes), supports=np.eye(4, 3))
    x = RNG.normal(size=(7, 5))
    plain = {"shift": np.zeros(3), "scale": np.ones(3), "axes": np.eye(3)}
    turned = KernelMachine.from_arrays("rbf", 0.3, mine.arrays() | plain)
    np.testing.assert_allclose(
        mine.decisions(x), turned.decisions(((x - shift) / scale) @ axes.T), atol=1e-12
    )


def test_a_logistic_curve_never_overflows_and_rises_with_the_decision():
    mine = machine("linear", supports=np.eye(1, 5), weights=np.ones((1, 1)), slope=np.array([-9.0]))
    x = np.zeros((3, 5))
    x[:, 0] = -1e6, 0, 1e6
    found = mine.probabilities(x)
    assert found[0, 1] == 0 < found[1, 1] < found[2, 1] == 1
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_classes_without_any_probability_are_equal():
    mine = machine(
        "linear",
        supports=np.eye(3, 5),
        weights=np.eye(3),
        bias=np.zeros(3),
        slope=np.full(3, -1.0),
        offset=np.zeros(3),
    )
    x = np.zeros((2, 5))
    x[0, :3] = -1e6
    np.testing.assert_allclose(mine.probabilities(x), 1 / 3)


def test_arrays_make_the_same_machine():
    mine = machine()
    same = KernelMachine.from_arrays("rbf", 0.3, mine.arrays())
    x = RNG.normal(size=(6, 5))
    np.testing.assert_array_equal(same.probabilities(x), mine.probabilities(x))
    assert same.num_values == mine.num_values == 5 + 5 + 20 + 4 + 3


def test_one_decision_a_class_against_the_rest():
    x = RNG.normal(size=(90, 5))
    labels = x[:, :3].argmax(axis=1)
    fitted = OneVsRestClassifier(SVC(kernel="linear")).fit(x, labels)
    mine = machine(
        "linear",
        supports=np.concatenate([m.coef_ for m in fitted.estimators_]),
        weights=np.eye(3),
        bias=np.array([m.intercept_[0] for m in fitted.estimators_]),
        slope=np.full(3, -1.0),
        offset=np.zeros(3),
    )
    np.testing.assert_allclose(mine.decisions(x), fitted.decision_function(x), atol=1e-9)
    assert (mine.probabilities(x).argmax(axis=1) == labels).mean() > 0.9
