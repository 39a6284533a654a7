"""Which parts of a classifier training changes."""

import pytest
import torch

from hemaml.nn.backbones import NUM_STAGES, load_backbone
from hemaml.nn.classifier import ImageClassifier

pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def classifier(unfrozen):
    loaded = load_backbone("resnet18", "none", lambda uri: None)
    return ImageClassifier(loaded.network, dim=512, num_classes=2, unfrozen=unfrozen, dropout=0.0)


@pytest.mark.parametrize("unfrozen", range(NUM_STAGES + 1))
def test_training_changes_the_unfrozen_stages_and_the_head_alone(unfrozen):
    network = classifier(unfrozen)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    network.train()
    for _ in range(2):
        network(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimiser.step()
    changed = {
        name.split(".")[1] if name.startswith("backbone.") else name.split(".")[0]
        for name, value in network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"head", *STAGES[NUM_STAGES - unfrozen :]}
    network.eval()
    assert not any(module.training for module in network.modules())


def test_training_a_stage_changes_its_running_statistics():
    network = classifier(1).train()
    norm = network.backbone.layer4[0].bn1
    before = norm.running_mean.clone()
    network(torch.randn(4, 3, 32, 32))
    assert not torch.equal(norm.running_mean, before)


def test_the_network_goes_on_from_any_stage():
    network = classifier(1).eval()
    x = torch.randn(2, 3, 32, 32)
    for stage in range(NUM_STAGES + 1):
        assert torch.equal(network(network.backbone.up_to(x, stage), stage), network(x))


def test_gradients_reach_the_image_through_frozen_stages():
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    classifier(0)(x).sum().backward()
    assert x.grad.abs().sum() > 0
