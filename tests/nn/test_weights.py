"""Files of weights: what reads, and what an unusable file says."""

import hashlib
import http.server
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hemaml.core.errors import ConfigError
from hemaml.nn.weights import (
    check_hash,
    downloaded,
    file_digest,
    from_url,
    load_strictly,
    read_state,
    state_digest,
)


def state():
    return {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}


@pytest.mark.parametrize("kind", ["safetensors", "pth", "folder"])
def test_a_state_reads_from_each_kind_of_file(tmp_path, kind):
    if kind == "pth":
        path = tmp_path / "w.pth"
        torch.save(state(), path)
    else:
        path = tmp_path / "model.safetensors"
        save_file(state(), path)
    found = read_state(tmp_path if kind == "folder" else path)
    assert found.keys() == {"a", "n"}
    assert torch.equal(found["a"], state()["a"])


def whole_module(path):
    torch.save(nn.Linear(2, 2), path)


def nested(path):
    torch.save({"state_dict": state(), "epoch": 3}, path)


def cut(path):
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("write", [whole_module, nested, cut, lambda path: path.write_text("no")])
def test_what_is_no_state_is_an_error_with_the_file(tmp_path, write):
    path = tmp_path / "bad.pth"
    write(path)
    with pytest.raises(ConfigError, match=r"bad\.pth"):
        read_state(path)


def test_a_damaged_safetensors_file_and_an_absent_one_are_errors(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"\x00" * 9)
    with pytest.raises(ConfigError, match="without running code"):
        read_state(path)
    with pytest.raises(ConfigError, match="there is no"):
        read_state(tmp_path / "absent")


def test_a_strict_load_lists_what_does_not_match():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    given = {"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2), "other": torch.ones(1)}
    before = network[0].bias.clone()
    with pytest.raises(ConfigError) as caught:
        load_strictly(network, given, source="w.pth")
    for part in ("w.pth", "2 missing (1.bias, 1.weight)", "1 unknown (other)", "(2, 4) for (2, 3)"):
        assert part in str(caught.value)
    assert torch.equal(network[0].bias, before)


def test_a_digest_knows_names_types_shapes_and_values():
    one = state_digest(state())
    assert one == state_digest(dict(reversed(state().items())))
    others = [
        {**state(), "a": state()["a"] + 1},
        {**state(), "a": state()["a"].view(3, 2)},
        {**state(), "n": torch.tensor(3.0)},
        {"b": state()["a"], "n": state()["n"]},
    ]
    assert len({one, *map(state_digest, others)}) == 5


@pytest.fixture
def server(tmp_path):
    """Serves a folder; counts what is asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "net.pth").write_bytes(b"weights")

    class Handler(http.server.SimpleHTTPRequestHandler):
        asked = 0

        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def do_GET(self):
            Handler.asked += 1
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", Handler
        running.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def test_a_download_is_checked_and_kept(server, hub):
    url, handler = server
    sha256 = digest_of(b"weights")[:8]
    path = downloaded(f"{url}/net.pth", sha256=sha256)
    assert path == hub / "net.pth"
    assert path.read_bytes() == b"weights"
    downloaded(f"{url}/net.pth", sha256=sha256)
    assert handler.asked == 1


def test_a_download_with_another_hash_is_refused_and_not_kept(server, hub):
    with pytest.raises(ConfigError, match="Other ways"):
        downloaded(f"{server[0]}/net.pth", sha256="0" * 8)
    assert not (hub / "net.pth").exists()


def test_what_cannot_be_downloaded_says_what_else_to_do(server, hub):
    with pytest.raises(ConfigError, match=r"absent\.pth.*Other ways.*by hand"):
        downloaded(f"{server[0]}/absent.pth", sha256="00")


def test_a_file_that_was_there_is_checked_too(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"weights")
    check_hash(path, digest_of(b"weights"))
    with pytest.raises(ConfigError, match="damaged"):
        check_hash(path, digest_of(b"other"))


def test_an_address_needs_its_hash_and_is_then_fixed_by_it(server, hub):
    url, handler = server
    with pytest.raises(ConfigError, match="must end in #sha256="):
        from_url(f"{url}/net.pth")
    right = f"{url}/net.pth#sha256={digest_of(b'weights')}"
    assert from_url(right).read_bytes() == b"weights"
    assert file_digest(right) == ""
    with pytest.raises(ConfigError, match="hash"):
        from_url(f"{url}/net.pth#sha256={'0' * 64}")


def test_files_of_one_name_from_two_addresses_keep_apart(server, hub, tmp_path):
    url, handler = server
    contents = {"one": b"weights of one", "two": b"weights of two"}
    for name, content in contents.items():
        folder = tmp_path / "served" / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content)
    for name, content in [*contents.items(), *contents.items()]:
        address = f"{url}/{name}/model.safetensors?download=true#sha256={digest_of(content)}"
        path = from_url(address)
        assert path.read_bytes() == content
        assert path.suffix == ".safetensors"
    assert handler.asked == 2
