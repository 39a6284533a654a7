"""What every objective promises, checked for each file below `hemaml/objectives`.

Each objective is trained at all of its `examples`, on a small generated or written data set of its
task. A new task adds its data to `DATA`.
"""

import io
import math
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.errors import UnknownName
from hemaml.core.objective import Context, load_objective, objective_names
from hemaml.core.task import Fold
from hemaml.nn.parameters import count_parameters

DATA: dict[str, dict[str, object]] = {
    "leukemia": {"reader": "smear_types", "classes": "binary", "patients": 12, "per_patient": 1,
                 "size": 40, "seed": 1},
    "lymphoma": {"reader": "smear_types", "classes": "three", "patients": 3, "per_patient": 4,
                 "size": 40, "seed": 2},
    "wbc_segmentation": {"reader": "smears", "count": 12, "size": 40, "seed": 1},
    "wbc_type": {"reader": "smear_types", "classes": "types", "patients": 3, "per_patient": 4,
                 "size": 40, "seed": 3},
}  # fmt: skip
"""Task to the `data:` section of the smallest set that its objectives can learn from."""

CASES = [
    pytest.param(name, index, id=f"{name}-{index}")
    for name in objective_names()
    for index in range(len(load_objective(name).examples))
]


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def fold_of(task: str) -> Fold:
    data: Dataset = load_objective(
        next(name for name in objective_names() if name.startswith(task + "."))
    ).task.read(DATA[task])
    return Fold(data.subset(range(8)), data.subset(range(8, 12)))


def open_case(name, index):
    objective = load_objective(name)
    return objective, objective.params.model_validate(objective.examples[index])


@cache
def fitted(name, index):
    """All steps of an example with seed 0; states and predictions are taken as they come."""
    objective, params = open_case(name, index)
    fold = fold_of(objective.task.name)
    steps, states, predictions = [], [], []
    for step in objective.fit(params, fold, Context(seed=0)):
        steps.append(step)
        states.append(step.state())
        predictions.append(step.model.predict(fold.val.images))
    return steps, states, predictions


@pytest.mark.parametrize(
    "name",
    [name for name in objective_names() if "precision" in load_objective(name).params.model_fields],
)
def test_a_network_trains_in_less_precision(name):
    """On the CPU too, where operations that lack bfloat16 would raise."""
    objective, params = open_case(name, 0)
    fold = fold_of(objective.task.name)
    lower = params.model_copy(update={"precision": "bfloat16", "epochs": 1})
    losses = [
        next(objective.fit(each, fold, Context(seed=0))).metrics["train/loss"]
        for each in (lower, lower, params.model_copy(update={"epochs": 1}))
    ]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(losses[2], rel=0.1)


@pytest.mark.parametrize("name", objective_names())
def test_an_objective_stands_where_its_name_says(name):
    objective = load_objective(name)
    assert objective.task.name == name.partition(".")[0]
    assert objective.task.name in DATA


@pytest.mark.parametrize("name", objective_names())
def test_every_parameter_has_a_meaning_and_a_default(name):
    for parameter, field in load_objective(name).params.model_fields.items():
        assert field.description, parameter
        assert not field.is_required(), parameter


@pytest.mark.parametrize("name", objective_names())
def test_parameters_are_frozen_and_known(name):
    params = load_objective(name).params
    with pytest.raises(ValidationError):
        params.model_validate({"no_such_parameter": 1})
    with pytest.raises(ValidationError):
        setattr(params(), next(iter(params.model_fields)), 1)


@pytest.mark.parametrize("name", objective_names())
def test_numbers_have_bounds(name):
    schema = load_objective(name).params.model_json_schema()["properties"]
    bounds = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    for parameter, rule in schema.items():
        if rule.get("type") in ("number", "integer") and "enum" not in rule:
            assert all(rule.keys() & side for side in bounds), parameter


@pytest.mark.parametrize("name", objective_names())
def test_what_may_change_on_resume_is_a_parameter(name):
    objective = load_objective(name)
    fields = objective.params.model_fields.items()
    assert objective.mutable <= {field.alias or key for key, field in fields}


@pytest.mark.parametrize("name", objective_names())
def test_another_file_of_weights_is_another_trial(name, tmp_path):
    objective = load_objective(name)
    named = [e for e in objective.examples if "weights" in e or name == "leukemia.backbone"]
    if "weights" in objective.params.model_fields:
        assert named
    for example in named:
        file = tmp_path / "weights.safetensors"
        params = objective.params.model_validate({**example, "weights": str(file)})
        digests = set()
        for content in (b"one", b"two"):
            file.write_bytes(content)
            digests.add(objective.files(params))
        assert len(digests) == 2


def test_importing_an_objective_is_cheap():
    """In one process, one after the other: what the first imports of these, each has from then."""
    slow = (
        "torch_geometric",
        "matplotlib",
        "skimage",
        "sklearn",
        "umap",
        "optuna",
        "mlflow",
        "ray",
    )
    code = f"""
import importlib, sys
for name in {objective_names()}:
    importlib.import_module(f"hemaml.objectives.{{name}}")
    print(name, *(m for m in {slow} if m in sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == objective_names()


def test_an_unknown_objective_lists_the_known():
    with pytest.raises(UnknownName, match=objective_names()[0]):
        load_objective("no.such")


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_fit_yields_counted_steps_with_the_primary_metric(name, index):
    steps, _, _ = fitted(name, index)
    assert [step.index for step in steps] == list(range(len(steps))) != []
    primary = load_objective(name).task.primary
    for step in steps:
        assert math.isfinite(step.metrics[primary])
        assert all(isinstance(value, float) for value in step.metrics.values())


@pytest.mark.parametrize(("name", "index"), CASES)
def test_scores_are_those_of_the_task_on_the_validation_part(name, index):
    objective = load_objective(name)
    steps, _, _ = fitted(name, index)
    fold = fold_of(objective.task.name)
    scores = objective.task.score(steps[-1].model, fold.val)
    for metric, value in scores.items():
        assert steps[-1].metrics[metric] == pytest.approx(value, abs=1e-6, nan_ok=True), metric


@pytest.mark.parametrize(("name", "index"), CASES)
def test_size_is_the_number_of_parameters(name, index):
    objective, params = open_case(name, index)
    model = fitted(name, index)[0][-1].model
    # A frozen network stands beside what was trained on it.
    frozen = getattr(getattr(model, "loaded", None), "network", None)
    networks = [n for n in (frozen, getattr(model, "network", None)) if n is not None]
    if not networks:
        pytest.skip("no network: nothing to count")
    assert objective.size(params) == sum(count_parameters(network)[0] for network in networks)
    assert model.num_trainable == count_parameters(networks[-1])[1]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_states_are_plain_and_survive_a_file(name, index):
    _, states, _ = fitted(name, index)
    for state in states:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        assert_equal(torch.load(file, weights_only=True), state)


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_fit_is_fixed_by_its_seed(name, index):
    objective, params = open_case(name, index)
    fold = fold_of(objective.task.name)
    torch.manual_seed(1234)  # what others draw must not matter
    again = list(objective.fit(params, fold, Context(seed=0)))
    for step, other in zip(again, fitted(name, index)[0], strict=True):
        assert without_times(step) == without_times(other)


def without_times(step):
    return {
        name: repr(value) for name, value in step.metrics.items() if not name.startswith("time/")
    }


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_resumed_fit_ends_like_one_that_never_stopped(name, index):
    objective, params = open_case(name, index)
    steps, states, predictions = fitted(name, index)
    fold = fold_of(objective.task.name)
    rest = list(objective.fit(params, fold, Context(seed=0, state=states[0])))
    assert [step.index for step in rest] == [step.index for step in steps[1:]]
    for step, other in zip(rest, steps[1:], strict=True):
        assert without_times(step) == without_times(other)
    if rest:
        for one, other in zip(
            rest[-1].model.predict(fold.val.images), predictions[-1], strict=True
        ):
            np.testing.assert_array_equal(one, other)


MUTABLE = [(name, p) for name in objective_names() for p in sorted(load_objective(name).mutable)]


@pytest.mark.parametrize(("name", "parameter"), MUTABLE)
def test_what_may_change_on_resume_takes_effect_there(name, parameter):
    objective = load_objective(name)
    assert any(changes_the_rest(name, index, parameter) for index in range(len(objective.examples)))


def changes_the_rest(name, index, parameter):
    """Whether the training after a first step ends otherwise with half the value, or with 1/2."""
    objective, params = open_case(name, index)
    _, states, _ = fitted(name, index)
    values = params.model_dump(by_alias=True)
    other = objective.params.model_validate(values | {parameter: values[parameter] / 2 or 0.5})
    rest = list(
        objective.fit(other, fold_of(objective.task.name), Context(seed=0, state=states[0]))
    )
    return bool(rest) and not equal(rest[-1].state()["network"], states[-1]["network"])


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_cache_changes_nothing(name, index, tmp_path):
    objective, params = open_case(name, index)
    fold = fold_of(objective.task.name)
    for _ in ("filled", "used"):
        steps = list(objective.fit(params, fold, Context(seed=0, cache=Cache(tmp_path))))
        for step, other in zip(steps, fitted(name, index)[0], strict=True):
            assert without_times(step) == without_times(other)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_saved_model_predicts_equally_after_loading(name, index, tmp_path):
    objective = load_objective(name)
    steps, _, predictions = fitted(name, index)
    fold = fold_of(objective.task.name)
    steps[-1].model.save(tmp_path)
    allowed = {".safetensors", ".json", ".skops"}
    assert {path.suffix for path in tmp_path.iterdir()} <= allowed
    loaded = objective.model.load(tmp_path)
    assert loaded.num_trainable == steps[-1].model.num_trainable
    for one, other in zip(loaded.predict(fold.val.images), predictions[-1], strict=True):
        # Not to the last bit: kernels differ with the size of a batch, and the live model of a
        # bank has embedded its validation images with others.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_predictions_are_probabilities_one_image_at_a_time_or_all(name, index):
    objective = load_objective(name)
    model = fitted(name, index)[0][-1].model
    data = fold_of(objective.task.name).val
    images = [data.images[0], data.images[1][:-7, 3:].copy()]
    together = model.predict(images)
    for image, values in zip(images, together, strict=True):
        assert values.dtype == np.float32
        assert values.shape[-1] == len(data.classes)
        assert values.shape[:-1] in [(), image.shape[:2]]
        assert values.min() >= 0
        np.testing.assert_allclose(values.sum(axis=-1), 1, atol=1e-5)
        np.testing.assert_allclose(model.predict([image])[0], values, atol=1e-5)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_what_a_classifier_sees_comes_along_with_what_it_says(name, index):
    objective = load_objective(name)
    if "classification" not in objective.task.figures:
        return
    model, images = fitted(name, index)[0][-1].model, fold_of(objective.task.name).val.images
    probabilities, features = model.predict_and_embed(list(images))
    np.testing.assert_array_equal(probabilities, model.predict(list(images)))
    first = next(iter(model.embed(list(images)).values()))
    np.testing.assert_array_equal(features, first)
