"""Milliseconds to embed an image by ResNet-18, with and without what makes batches cheap.

    pytest tests/benchmarks/test_embedding.py -s

Batches of 32 images of 224 x 224 pixels, one thread, in a new process each, since the settings of
an allocator last as long as their process. `before` is the library's network as it comes, on
contiguous tensors.
"""

import json
import subprocess
import sys
import time

import numpy as np
import torch

NUM, SIDE, REPEATS = 32, 224, 8
LARGEST_RATIO = 0.5


def before(pixels):
    """The library's network in inference mode."""
    from torchvision.models import resnet18

    network = resnet18(weights=None).eval()
    network.fc = torch.nn.Identity()
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    @torch.inference_mode()
    def embed():
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
        return network((batch - mean) / std).numpy()

    return embed


def channels_last(pixels):
    """Our network and tables, with the allocator as it comes."""
    from hemaml.nn import embeddings

    embeddings.keep_freed_memory = lambda: False
    return after(pixels)


def after(pixels):
    """What objectives call."""
    from hemaml.core.cache import Cache
    from hemaml.core.rows import Rows
    from hemaml.nn.backbones import load_backbone
    from hemaml.nn.embeddings import embeddings

    loaded = load_backbone("resnet18", "none", lambda uri: None)
    rows, digests = Rows(pixels, np.arange(NUM)), [str(i) for i in range(NUM)]
    return lambda: embeddings(loaded, rows, digests, Cache.off(), size=SIDE, device="cpu")


def measure(name):
    """Milliseconds of processor time an image: the least of several batches.

    One thread computes, so that is what an idle machine would take, whoever else works.
    """
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(256, size=(NUM, SIDE, SIDE, 3), dtype=np.uint8)
    embed = {"before": before, "channels_last": channels_last, "after": after}[name](pixels)
    times = []
    for _ in range(REPEATS + 2):
        started = time.process_time()
        embed()
        times.append((time.process_time() - started) * 1000 / NUM)
    return min(times[2:])


def measured(name):
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def test_embedding_is_cheaper_than_the_library_alone():
    times = {name: measured(name) for name in ("before", "channels_last", "after")}
    for name, value in times.items():
        print(f"\n  {name:14} {value:6.1f} ms/image", end="")
    ratio = times["after"] / times["before"]
    print(f"\nafter / before: {ratio:.2f} (target: at most {LARGEST_RATIO})")
    assert times["after"] < times["before"]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
