"""Networks on tissue: the augmentation of Table 1, tiles, and what a saved model needs."""

import numpy as np
import pytest
import torch

from hemaml.core.cache import Cache, array_digest
from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.objectives import _fine_tuning
from hemaml.objectives._fine_tuned import FineTunedModel
from hemaml.objectives.lymphoma import densenet121, resnet50
from hemaml.objectives.lymphoma._table_1 import NONE

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"backbone": "resnet18", "weights": "none", "size": 32, "epochs": 1, "batch_size": 4}


def tissue(num, shape=(40, 56), seed=0):
    """Nuclei on a pale ground; their number tells the class."""
    draws = np.random.default_rng(seed)
    images = []
    for index in range(num):
        image = draws.integers(200, 230, size=(*shape, 3), dtype=np.uint8)
        for _ in range(2 + 12 * (index % 3)):
            row, column = draws.integers(2, shape[0] - 2), draws.integers(2, shape[1] - 2)
            image[row - 2 : row + 2, column - 2 : column + 2] = (90, 50, 140)
        images.append(image)
    digests = tuple(array_digest(image) for image in images)
    names = tuple(f"{i:02}" for i in range(num))
    labels = tuple(i % 3 for i in range(num))
    return Dataset(
        "tissue", ("CLL", "FL", "MCL"), names, tuple(images), digests, labels=labels,
        image_digests=digests,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fold():
    data = tissue(15)
    return Fold(data.subset(range(9)), data.subset(range(9, 15)))


def last(fold, cache=None, **params):
    params = resnet50.Params(**{**QUICK, **params})
    context = Context(cache=cache or Cache.off())
    return list(resnet50.objective.fit(params, fold, context))[-1]


@pytest.fixture
def batches(monkeypatch):
    seen = []

    class Watched(_fine_tuning.EpochBatches):
        def __call__(self, epoch):
            for x, labels in super().__call__(epoch):
                seen.append((x, labels))
                yield x, labels

    monkeypatch.setattr(_fine_tuning, "EpochBatches", Watched)
    return seen


def test_the_defaults_are_those_of_the_paper():
    for objective, name in ((resnet50, "resnet50"), (densenet121, "densenet121")):
        params = objective.Params()
        assert (params.backbone, params.size, params.unfrozen_blocks) == (name, 224, 1)
        how = params.augmentation
        assert (how.rotation, how.shift, how.shear, how.flip) == (10, 0.1, 10, True)
        assert (how.scale, how.brightness, how.fill) == ((0.9, 1.1), (0.2, 1.2), "nearest")


def test_the_parameter_counts_are_those_of_the_architectures():
    """ResNet-50 has 23.508 million below its classifier, DenseNet-121 6.954 million."""
    assert resnet50.objective.size(resnet50.Params()) == 23_508_032 + 3 * 2049
    assert densenet121.objective.size(densenet121.Params()) == 6_953_856 + 3 * 1025


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match="scale_low <= scale_high"):
        resnet50.Params(scale_low=1.2)
    assert not resnet50.Params(**NONE).augmentation.changes_anything


def test_what_is_trained_is_the_last_block_and_the_head(fold):
    network = last(fold, backbone="densenet121").model.network
    trained = {n.split(".")[1] for n, p in network.backbone.named_parameters() if p.requires_grad}
    assert trained == {"denseblock4", "norm5"}


def test_random_tiles_are_cut_anew_from_the_whole_image(fold, batches, tmp_path):
    step = last(fold, Cache(tmp_path), tiles=3, epochs=2, **NONE)
    assert step.metrics["accuracy"] >= 0
    assert all(len(x) == len(labels) for x, labels in batches)
    assert sum(len(x) for x, _ in batches) == 2 * 9 * 3
    one, other = (torch.cat([x for x, _ in batches[part]]) for part in (slice(3), slice(3, 6)))
    assert not torch.equal(one.mean((1, 2, 3)).sort()[0], other.mean((1, 2, 3)).sort()[0])
    counts = torch.cat([labels for _, labels in batches[:3]]).bincount()
    assert counts.tolist() == [9, 9, 9]


def test_tiles_of_a_grid_are_kept_behind_frozen_blocks(fold, tmp_path):
    """Equal to the last bit to what is computed from pixels."""
    for unfrozen in (0, 1):
        how = {"tiles": 4, "tile_choice": "grid", "unfrozen_blocks": unfrozen, **NONE}
        live = last(fold, cache_boundary=False, **how)
        for _ in ("filled", "used"):
            cached = last(fold, Cache(tmp_path), **how)
            for name, value in live.metrics.items():
                assert cached.metrics[name] == value or name.startswith("time/"), name


def test_a_prediction_is_the_mean_over_the_tiles_of_an_image(fold, tmp_path):
    model = last(fold, tiles=6).model
    image = fold.val.images[0].copy()
    views = model.views(image)
    assert [(v.top, v.left) for v in views] == [(t, x) for t in (0, 8) for x in (0, 12, 24)]
    whole = FineTunedModel(
        model.params.model_copy(update={"tiles": 0}), model.network, model.classes, ""
    )
    alone = np.mean(whole.predict([view.pixels for view in views]), axis=0)
    np.testing.assert_allclose(model.predict([image])[0], alone, atol=1e-6)
    np.testing.assert_allclose(model.predict(fold.val.images)[0], alone, atol=1e-6)
    model.save(tmp_path)
    loaded = FineTunedModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict([image]), model.predict([image]))
    with pytest.raises(DataError, match="tiles of 32 pixels"):
        loaded.predict([image[:20]])
    assert loaded.origin == "random weights"


def test_images_of_several_sizes_are_no_fault_unless_tiles_are_cut_at_random():
    data = tissue(6)
    mixed = Dataset(
        **{
            **{name: getattr(data, name) for name in data.__dataclass_fields__},
            "images": (*data.images[:5], tissue(1, (48, 60)).images[0]),
            "image_digests": (*data.image_digests[:5], "other"),
        }
    )
    fold = Fold(mixed, mixed)
    for how in ({}, {"tiles": 2, "tile_choice": "grid"}):
        assert last(fold, **how)
    with pytest.raises(DataError, match="images of one size"):
        last(fold, tiles=2)


def test_a_hidden_layer_and_stains_change_the_training(fold):
    usual = last(fold).metrics["train/loss"]
    for change in ({"hidden": 8}, {"stain": 0.1}, {"shear": 0}, {"shift": 0}, {"scale_low": 1},
                   {"brightness_low": 1}, {"fill": "reflection"}, {"tiles": 2}):  # fmt: skip
        assert last(fold, **change).metrics["train/loss"] != usual, change
