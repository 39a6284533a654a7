"""What the rivals of the SMGNN share, and their numbers of parameters against the paper's."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hemaml.core.errors import Diverged
from hemaml.core.objective import Context, load_objective
from hemaml.core.task import Fold
from hemaml.data.augment import NUM_CODES
from hemaml.nn.parameters import count_parameters
from hemaml.objectives.wbc_segmentation import _convolutional
from hemaml.objectives.wbc_segmentation._convolutional import framed, segmentation_loss
from hemaml.objectives.wbc_segmentation._images import NO_CLASS, turned
from hemaml.objectives.wbc_segmentation.unet import Params, UnetModel
from hemaml.ops.losses import dice_loss

pytestmark = pytest.mark.usefixtures("one_thread")
MILLIONS = {
    "unet": 5.43,
    "r_unet": 31.03,
    "attention_unet": 34.88,
    "swin_unet": 73.46,
    "mif_net": 2.67,
    "vgu_net": 4.99,
}
"""Table 1 of the SMGNN paper."""
TINY = {"width": 1 / 32, "epochs": 2, "validate_every": 1, "batch_size": 4}


@pytest.fixture
def fold(smears):
    return Fold(smears.subset(range(6)), smears.subset(range(6, 9)))


def network_of(params, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return params.build().eval()


def rival(name, **values):
    objective = load_objective(f"wbc_segmentation.{name}")
    return objective, objective.params(**{"width": 1 / 32, **values})


def model_of(name, **values):
    objective, params = rival(name, **values)
    return objective.model(params, network_of(params))


def losses(params, fold, **context):
    return [
        s.metrics["train/loss"]
        for s in _convolutional.fit(UnetModel, params, fold, Context(**context))
    ]


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_the_default_has_the_papers_number_of_parameters(name, millions):
    objective = load_objective(f"wbc_segmentation.{name}")
    assert objective.size(objective.params()) == pytest.approx(millions * 1e6, rel=0.02)


@pytest.mark.parametrize("name", MILLIONS)
def test_width_scales_all_channels(name):
    """Nearly all parameters are weights between two layers, so they go with its square."""
    objective = load_objective(f"wbc_segmentation.{name}")
    whole, half, least = (
        objective.size(objective.params(width=width)) for width in (1, 1 / 2, 1 / 64)
    )
    assert half == pytest.approx(whole / 4, rel=0.02)
    assert 0 < least < whole / 1000


@pytest.mark.parametrize("name", MILLIONS)
def test_all_parameters_learn(name, fold):
    objective, params = rival(name)
    network = network_of(params).train()
    torch.manual_seed(0)
    pixels, classes = _convolutional._batch(
        fold.train, quantiles_of(fold.train), torch.arange(4), params, torch.Generator()
    )
    loss = segmentation_loss(network(pixels), classes, params)["loss"]
    loss.backward()
    for part, parameter in network.named_parameters():
        assert parameter.grad is not None, part
    silent = [p for p in network.parameters() if p.grad.abs().max() == 0]
    assert len(silent) < len(list(network.parameters())) / 4  # a ReLU may be off in a tiny network


def quantiles_of(data):
    return [_convolutional.colour_quantiles(image) for image in data.images]


@pytest.mark.parametrize("name", MILLIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 53)])
def test_images_of_any_size_are_predicted(name, shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    prediction = model_of(name).predict([image])[0]
    assert prediction.shape == (*shape, 3)
    np.testing.assert_allclose(prediction.sum(axis=2), 1, atol=1e-5)


@pytest.mark.parametrize("name", MILLIONS)
def test_predictions_do_not_depend_on_what_else_is_predicted(name, smears, monkeypatch):
    model = model_of(name, clean_up=False)
    together = model.predict(smears.images[:5])
    monkeypatch.setattr(_convolutional, "PIXELS_AT_ONCE", 1)
    for image, one, other in zip(
        smears.images, together, model.predict(smears.images[:5]), strict=False
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(one, model.predict([image])[0], atol=1e-5)


def test_an_image_that_fits_is_seen_as_it_is():
    """Nothing is scaled: a prediction is the softmax of the network on the very pixels."""
    model = model_of("unet", clean_up=False, colour_stretch=False)
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] * (2 / 255) - 1
    with torch.no_grad():
        expected = model.network(x).softmax(1)[0].permute(1, 2, 0)
    np.testing.assert_allclose(model.predict([image])[0], expected, atol=1e-5)


def test_frames_mirror_images_up_to_a_common_multiple():
    images = [np.arange(6).reshape(2, 3), np.arange(20).reshape(4, 5)]
    small, large = framed(images, multiple=3)
    np.testing.assert_array_equal(
        small[:, :3], [[0, 1, 2], [3, 4, 5], [3, 4, 5], [0, 1, 2]] + [[0, 1, 2], [3, 4, 5]]
    )
    np.testing.assert_array_equal(small[0], [0, 1, 2, 2, 1, 0])
    np.testing.assert_array_equal(large[:4, :5], images[1])
    assert framed(images, multiple=4).shape == (2, 8, 8)
    assert (framed(images[:1], multiple=4, fill=7) == 7).sum() == 64 - 6


def test_no_images_are_no_predictions():
    assert model_of("unet").predict([]) == []


def test_padding_takes_no_part_in_the_loss():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    params = Params(cross_entropy=0.5)
    inside = segmentation_loss(logits[:, :, :3], classes[:, :3], params)
    classes[:, 3] = NO_CLASS
    framed_loss = segmentation_loss(logits, classes, params)
    for part, value in inside.items():
        torch.testing.assert_close(framed_loss[part], value)


@pytest.mark.parametrize("weight", [0, 0.3])
def test_the_loss_is_dice_plus_the_cross_entropy_by_its_weight(weight):
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    parts = segmentation_loss(logits, classes, Params(cross_entropy=weight))
    hot = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(parts["dice_loss"], dice_loss(logits.softmax(1), hot))
    cross = -(hot * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(parts["loss"], parts["dice_loss"] + weight * cross)
    assert ("cross_entropy" in parts) == (weight > 0)


def test_masks_turn_with_their_images(smears):
    """The red channel of each image is its mask, and stays so in every batch."""
    told = replace(
        smears,
        images=tuple(np.stack([mask * 100] * 3, axis=2) for mask in smears.masks),
    )
    params = Params(colour_stretch=False)
    chosen = torch.arange(len(told))
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        pixels, classes = _convolutional._batch(told, quantiles_of(told), chosen, params, generator)
        inside = classes != NO_CLASS
        read = ((pixels[:, 0] + 1) * 255 / 200).round().long()
        assert torch.equal(read[inside], classes[inside])
        seen |= {classes[0].numpy().tobytes()}
    assert len(seen) > 1


@pytest.mark.parametrize("code", range(NUM_CODES))
def test_turning_keeps_every_pixel(code):
    image = np.arange(15).reshape(3, 5)
    moved = turned(image, code)
    assert moved.shape == ((5, 3) if code & 4 else (3, 5))
    assert sorted(moved.ravel()) == list(range(15))


def test_batches_are_about_equal(fold, monkeypatch):
    sizes = []
    batch = _convolutional._batch
    monkeypatch.setattr(
        _convolutional, "_batch", lambda *args: sizes.append(len(args[2])) or batch(*args)
    )
    list(_convolutional.fit(UnetModel, Params(**{**TINY, "epochs": 1}), fold, Context()))
    assert sizes == [3, 3]


def test_equal_seeds_give_equal_losses_bit_for_bit(fold):
    params = Params(**TINY)
    first = losses(params, fold, seed=3)
    torch.manual_seed(99)
    assert losses(params, fold, seed=3) == first
    assert losses(params, fold, seed=4) != first
    assert losses(params.model_copy(update={"augment": False}), fold, seed=3) != first


def test_rate_and_weight_may_change_on_resume(fold):
    params = Params(**TINY)
    state = next(_convolutional.fit(UnetModel, params, fold, Context())).state()
    changed = params.model_copy(update={"cross_entropy": 10.0, "lr": 1e-5})
    last = list(_convolutional.fit(UnetModel, changed, fold, Context(state=state)))[-1].metrics
    assert last["train/lr"] <= 1e-5
    expected = last["train/dice_loss"] + 10 * last["train/cross_entropy"]
    assert math.isclose(last["train/loss"], expected, rel_tol=1e-5)


def test_a_rate_beyond_reason_diverges(fold):
    wild = Params(**{**TINY, "epochs": 4}).model_copy(update={"lr": 1e30})
    with pytest.raises(Diverged, match="epoch"):
        list(_convolutional.fit(UnetModel, wild, fold, Context()))


def test_a_set_of_other_classes_is_refused(fold):
    other = replace(fold.val, classes=("background", "cell"))
    with pytest.raises(ValueError, match="cell"):
        list(_convolutional.fit(UnetModel, Params(**TINY), Fold(fold.train, other), Context()))


@pytest.mark.parametrize("name", MILLIONS)
def test_it_learns_drawn_cells(name, fold):
    width = 1 / 4 if name == "mif_net" else 1 / 8  # at least eight channels
    objective, params = rival(
        name, width=width, epochs=20, validate_every=20, batch_size=2, lr=5e-3
    )
    (step,) = objective.fit(params, fold, Context())
    assert step.metrics["dice"] > 0.6


@pytest.mark.parametrize("name", MILLIONS)
def test_a_model_that_is_loaded_is_the_same(name, smears, tmp_path):
    model = model_of(name)
    model.save(tmp_path)
    loaded = type(model).load(tmp_path)
    assert loaded.params == model.params
    assert count_parameters(loaded.network) == count_parameters(model.network)
    for one, other in zip(model.predict(smears.images), loaded.predict(smears.images), strict=True):
        np.testing.assert_array_equal(one, other)
