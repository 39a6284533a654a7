"""ResNet-18 on generated cells: what is trained, what is cached, what a saved model carries."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hemaml.core.cache import Cache, array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.nn.backbones import NUM_STAGES, load_backbone
from hemaml.objectives import _fine_tuning
from hemaml.objectives._fine_tuned import FineTunedModel
from hemaml.objectives.leukemia import backbone, resnet18
from hemaml.objectives.leukemia.resnet18 import Params

pytestmark = pytest.mark.usefixtures("one_thread")
fit = resnet18.objective.fit
STILL = {"flip": False, "rotation": 0, "jitter": 0}
QUICK = {"weights": "none", "size": 32, "epochs": 2, "batch_size": 4, "dropout": 0.1}


def cells(num, num_classes=2, seed=0):
    """Discs on noise, larger by class, on images of two shapes."""
    draws = np.random.default_rng(seed)
    labels = tuple(i % num_classes for i in range(num))
    images = []
    for i, label in enumerate(labels):
        image = draws.integers(150, 200, size=(40 + 5 * (i % 3 > 1), 40, 3), dtype=np.uint8)
        rows, columns = np.ogrid[: len(image), :40]
        disc = (rows - 20) ** 2 + (columns - 20) ** 2 < (6 + 12 * label / (num_classes - 1)) ** 2
        image[disc] //= 2
        images.append(image)
    digests = tuple(array_digest(image) for image in images)
    classes = ("healthy", "leukemia") if num_classes == 2 else tuple("abcdefgh"[:num_classes])
    return Dataset(
        name="cells",
        classes=classes,
        ids=tuple(f"{i:02}" for i in range(num)),
        images=tuple(images),
        digests=digests,
        labels=labels,
        image_digests=digests,
    )


@pytest.fixture(scope="module")
def fold():
    data = cells(17)
    return Fold(data.subset(range(11)), data.subset(range(11, 17)))


def params(**values):
    return Params(**{**QUICK, **values})


def last(p, fold, **context):
    return list(fit(p, fold, Context(**context)))[-1]


def losses(p, fold, **context):
    return [step.metrics["train/loss"] for step in fit(p, fold, Context(**context))]


@pytest.mark.parametrize("unfrozen", range(NUM_STAGES + 1))
def test_training_on_cached_activations_is_training_on_images(fold, unfrozen, tmp_path):
    """Equal to the last bit, and so are the predictions."""
    p = params(unfrozen_blocks=unfrozen, **STILL)
    live = last(p.model_copy(update={"cache_boundary": False}), fold)
    for _ in ("filled", "used"):
        cached = last(p, fold, cache=Cache(tmp_path))
        for name, value in live.metrics.items():
            assert cached.metrics[name] == value or name.startswith("time/"), name
        for one, other in zip(
            cached.model.network.parameters(), live.model.network.parameters(), strict=True
        ):
            assert torch.equal(one, other)


@pytest.fixture
def batches(monkeypatch):
    """What the network is given, batch by batch: inputs and labels."""
    seen = []

    class Watched(_fine_tuning.EpochBatches):
        def __call__(self, epoch):
            for x, labels in super().__call__(epoch):
                seen.append((x, labels))
                yield x, labels

    monkeypatch.setattr(_fine_tuning, "EpochBatches", Watched)
    return seen


def test_with_augmentation_each_epoch_sees_other_images(fold, batches):
    last(params(batch_size=64, rotation=10), fold)
    augmented = [x.mean().item() for x, _ in batches]
    assert len(set(augmented)) == 2
    batches.clear()
    last(params(batch_size=64, unfrozen_blocks=5, **STILL), fold)
    still = [x.mean().item() for x, _ in batches]
    assert still[0] == pytest.approx(still[1], abs=1e-5)


def test_frozen_weights_and_statistics_stay_those_that_were_loaded(fold):
    p = params(unfrozen_blocks=2)
    seed = _fine_tuning.derive_seed(0, "weights")
    before = load_backbone("resnet18", "none", None, seed=seed).network.state_dict()
    after = last(p, fold).model.network.backbone.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layer3", "layer4"}


def test_predictions_of_the_validation_part_are_those_of_its_images(fold):
    step = last(params(), fold)
    copies = [image.copy() for image in fold.val.images]
    for one, other in zip(
        step.model.predict(copies), step.model.predict(fold.val.images), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    features = step.model.embed(copies)["backbone"]
    assert features.shape == (6, 512)


def test_a_saved_model_needs_no_weights_to_load(fold, tmp_path, monkeypatch):
    step = last(params(unfrozen_blocks=1), fold)
    step.model.save(tmp_path)

    def forbidden(*args, **options):
        raise AssertionError("asked for weights")

    monkeypatch.setattr(_fine_tuning, "load_backbone", forbidden)
    loaded = FineTunedModel.load(tmp_path)
    copies = [image.copy() for image in fold.val.images]
    np.testing.assert_array_equal(loaded.predict(copies), step.model.predict(copies))
    assert loaded.classes == ("healthy", "leukemia")
    assert json.loads((tmp_path / "config.json").read_text())["params"]["unfrozen_blocks"] == 1


def test_a_pretrained_backbone_is_where_the_next_fit_starts(fold, tmp_path):
    types = cells(16, num_classes=8, seed=1)
    p = backbone.Params(size=32, epochs=1, batch_size=8)
    pretrained = list(backbone.objective.fit(p, Fold(types, types), Context()))[-1].model
    assert pretrained.num_trainable == sum(x.numel() for x in pretrained.network.parameters())
    pretrained.save(tmp_path)
    expected = pretrained.network.backbone.state_dict()
    ways = {
        "models:/cells@best": lambda uri: {"models:/cells@best": tmp_path}[uri],
        str(tmp_path): None,
        str(tmp_path / "model.safetensors"): None,
    }
    for weights, registered in ways.items():
        p = params(weights=weights, unfrozen_blocks=0, epochs=1)
        found = last(p, fold, registered=registered).model.network
        assert found.head.weight.shape == (2, 512)
        for name, value in found.backbone.state_dict().items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("num", "size"), [(11, 5), (9, 8), (8, 4)])
def test_batches_are_about_equal_and_an_epoch_holds_each_image_once(fold, batches, num, size):
    """So that no batch has a single image, which has no statistics."""
    last(params(batch_size=size, epochs=1, unfrozen_blocks=0), replace(fold, train=cells(num)))
    counts = [len(labels) for _, labels in batches]
    assert sum(counts) == num
    assert max(counts) <= size
    assert min(counts) >= max(max(counts) - 1, 2)
    assert len({x.numpy().tobytes() for batch, _ in batches for x in batch}) == num


def test_class_weights_change_the_loss_of_unbalanced_data(fold):
    chosen = [i for i, label in enumerate(fold.train.labels) if label or i < 4]
    unbalanced = replace(fold, train=fold.train.subset(chosen))
    assert losses(params(), unbalanced) != losses(params(class_weights=False), unbalanced)


def test_each_parameter_of_training_matters(fold):
    still = {**STILL, "epochs": 1}
    usual = losses(params(**still), fold)
    for change in (
        {"lr": 1e-2}, {"lr_backbone": 1.0}, {"batch_size": 8}, {"weight_decay": 0.9},
        {"label_smoothing": 0.2}, {"dropout": 0.5}, {"unfrozen_blocks": 0}, {"size": 40},
        {"flip": True}, {"rotation": 10}, {"jitter": 0.2}, {"schedule": "constant"},
        {"precision": "bfloat16"},
    ):  # fmt: skip
        assert losses(params(**{**still, **change}), fold) != usual, change


def test_patience_ends_the_fit(fold):
    p = params(epochs=9, patience=1, lr=1e-6, unfrozen_blocks=0, schedule="constant", **STILL)
    assert len(list(fit(p, fold, Context()))) < 9


def test_it_learns(fold):
    data = cells(24, seed=3)
    step = last(params(epochs=4, unfrozen_blocks=5, lr_backbone=1), replace(fold, train=data))
    assert step.metrics["auc"] == 1


def test_a_size_that_the_backbone_cannot_take_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        Params(backbone="efficientnet_lite0", size=100)


def test_absent_weights_end_the_fit_before_it_starts(fold):
    with pytest.raises(ConfigError, match="weights: none"):
        next(fit(params(weights="no/such/file"), fold, Context()))


def test_the_parameter_counts_are_those_of_the_paper():
    """11.18 million with two outputs, of which the head has 2 x 513."""
    assert resnet18.objective.size(params(unfrozen_blocks=0)) == 11_177_538
    pytest.importorskip("timm", reason="needs the extra `efficientnet`")
    assert resnet18.objective.size(params(backbone="efficientnet_lite0")) == 3_371_008 + 2 * 1281
