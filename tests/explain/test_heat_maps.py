"""Heat maps are the library's, whatever is frozen, and lie where the views of an image lie."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from explain.tissue import Tissue, network, tissue
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import densenet121

from hemaml.core.errors import UnknownName
from hemaml.explain.heat_maps import METHODS, class_maps, explained, merged, scaled_map, seen
from hemaml.nn.backbones import architecture_of
from hemaml.tasks._classification import View

BACKBONES = ("resnet18", "densenet121")


def pixels(num=2, side=96):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (num, side, side, 3), dtype=np.uint8)


def of_the_library(net, method, x_NSSC, target, layer="layer4"):
    """Maps of the whole network with gradients everywhere."""
    x = architecture_of("resnet18").normalise(torch.from_numpy(x_NSSC)).requires_grad_()
    stage = dict(net.backbone.named_children())[layer]
    cam = getattr(pytorch_grad_cam, METHODS[method])(net, [stage])
    return cam(x, [ClassifierOutputTarget(target)] * len(x))


def ours(net, method, x_NSSC, target, layer="layer4"):
    normalise = architecture_of("resnet18").normalise
    maps, _ = seen(net, normalise, x_NSSC, layer=layer)
    heats = class_maps(net, maps, target, method=method, layer=layer)
    return np.stack([scaled_map(heat, *x_NSSC.shape[1:3]) for heat in heats])


@pytest.mark.parametrize("unfrozen", [0, 5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_are_those_of_the_library_on_the_whole_network(name, method, unfrozen):
    net = network(name, unfrozen=unfrozen)
    expected = of_the_library(net, method, pixels(), 1)
    assert expected.max() > 0.99 and expected.std() > 0.05, "a map to compare with"
    np.testing.assert_allclose(ours(net, method, pixels(), 1), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_lower_stages_are_mapped_as_well(name):
    net = network(name)
    expected = of_the_library(net, "layercam", pixels(), 2, "layer3")
    found = ours(net, "layercam", pixels(), 2, "layer3")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(found - ours(net, "layercam", pixels(), 2)).max() > 0.1


def test_grad_cam_by_hand_on_densenet():
    net = network("densenet121")
    x = architecture_of("densenet121").normalise(torch.from_numpy(pixels()))
    maps = net.backbone.maps(x, 0, 5).detach().requires_grad_()
    (grads,) = torch.autograd.grad(net.head(maps.mean(dim=(2, 3)))[:, 1].sum(), maps)
    assert maps.min() == 0, "behind its last ReLU"
    heat = (grads.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).clamp(min=0).detach()
    for one, other in zip(heat.numpy(), ours(net, "gradcam", pixels(), 1), strict=True):
        np.testing.assert_allclose(scaled_map(one, 96, 96), other, atol=1e-5)


def test_what_norm5_gives_keeps_its_negative_values():
    """The library's DenseNet overwrites it after the hook has taken it; ours must not."""

    def kept(module, run):
        taken = []
        handle = module.register_forward_hook(lambda m, i, out: taken.append(out.detach()))
        with torch.no_grad():
            run()
        handle.remove()
        return float(taken[0].min())

    x = torch.randn(1, 3, 64, 64)
    theirs = densenet121(weights=None).eval()
    assert kept(theirs.features.norm5, lambda: theirs(x)) == 0, "the trap"
    mine = network("densenet121")
    assert kept(mine.backbone[-1].norm5, lambda: mine(x)) < 0


def test_a_network_is_left_as_it_was():
    net = network(unfrozen=1)
    needs = [p.requires_grad for p in net.parameters()]
    ours(net, "gradcam++", pixels(), 0, "layer2")
    assert [p.requires_grad for p in net.parameters()] == needs
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_whole_view_is_scaled_to_its_image():
    model = Tissue(network())
    image, _ = tissue()
    (found,) = explained(model, [image])
    assert found.heat.shape == image.shape[:2]
    assert found.heat.min() == 0 and found.heat.max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.probabilities, model.predict([image])[0], atol=1e-6)
    assert found.target == found.probabilities.argmax()


def test_tiles_lie_where_they_were_cut_and_count_by_their_probability_of_one_class():
    model = Tissue(network(), tiles=2)
    image, _ = tissue()
    (found,) = explained(model, [image], method="gradcam")
    np.testing.assert_allclose(found.probabilities, model.predict([image])[0], atol=1e-6)
    parts = []
    for view in model.views(image):
        maps, shares = seen(model.network, model.normalise, np.stack([view.pixels]))
        (heat,) = class_maps(model.network, maps, found.target, method="gradcam")
        rows = slice(view.top, view.top + view.height)
        columns = slice(view.left, view.left + view.width)
        expected = shares[0, found.target] * scaled_map(heat, view.height, view.width)
        parts.append((found.heat[rows, columns], expected))
    hottest = max(expected.max() for _, expected in parts)
    for heat, expected in parts:
        np.testing.assert_allclose(heat, expected / hottest, atol=1e-5)
    assert found.heat.max() == pytest.approx(1)


def test_overlapping_views_are_averaged_and_unseen_places_are_cold():
    image = np.zeros((4, 10, 3), np.uint8)
    views = [View(0, left, 4, 4, image[:, :4]) for left in (0, 2)]
    heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    found = merged(image, views, np.stack([heat, 1 - heat]), np.array([0.8, 0.2], np.float32))
    assert (found[:, 6:] == 0).all()
    mean = np.hstack([0.8 * heat[:, :2], (0.8 * heat[:, 2:] + 0.2 * (1 - heat[:, :2])) / 2])
    hottest = max(mean.max(), 0.2 * (1 - heat[:, 2:]).max())
    np.testing.assert_allclose(found[:, :4], mean / hottest, atol=1e-6)
    nothing = merged(image, views, np.zeros((2, 4, 4), np.float32), np.ones(2, np.float32))
    assert (nothing == 0).all()


def test_unknown_names_list_the_known():
    model = Tissue(network())
    with pytest.raises(UnknownName, match="'gradcam#'; known: gradcam, gradcam.., .*layercam"):
        list(explained(model, [tissue()[0]], method="gradcam#"))
    with pytest.raises(UnknownName, match="'layer5'; known: layer4, "):
        list(explained(model, [tissue()[0]], layer="layer5"))
