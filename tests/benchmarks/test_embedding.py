"""Milliseconds to embed an image by ResNet-18, with and without what makes batches cheap.

    pytest tests/benchmarks/test_embedding.py -s

Batches of 32 images of 224 x 224 pixels, one thread, in a new process each, since the settings of
an allocator last as long as their process. `before` is the library's network as it comes, on
contiguous tensors; `convolutions` are those of ours alone, below which nothing can come that calls
them, and their operations a second stand beside those of a product of large matrices.
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


def convolutions(pixels):
    """Each convolution on what it gets in the network, and nothing else."""
    from hemaml.nn.allocation import keep_freed_memory
    from hemaml.nn.backbones import load_backbone

    keep_freed_memory()
    loaded = load_backbone("resnet18", "none", lambda uri: None)
    calls = []
    for module in loaded.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, x, y: calls.append((module, x[0])))
    with torch.inference_mode():
        loaded.network(loaded.normalise(torch.from_numpy(pixels)))

    @torch.inference_mode()
    def embed():
        for module, x in calls:
            torch.nn.functional.conv2d(x, module.weight, None, module.stride, module.padding)

    return embed


def measure(name):
    """Milliseconds of processor time an image: the least of several batches.

    One thread computes, so that is what an idle machine would take, whoever else works.
    """
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(256, size=(NUM, SIDE, SIDE, 3), dtype=np.uint8)
    return shortest(globals()[name](pixels)) * 1000 / NUM


def shortest(work):
    times = []
    for _ in range(REPEATS + 2):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times[2:])


def speeds(convolutions_ms):
    """GFLOP/s of the convolutions and of a product of two matrices, one thread."""
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18

    torch.set_num_threads(1)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        resnet18(weights=None).eval()(torch.zeros(1, 3, SIDE, SIDE))
    matrix = torch.ones(2048, 2048)
    product = 2 * 2048**3 / shortest(lambda: matrix @ matrix)
    return counter.get_total_flops() / convolutions_ms / 1e6, product / 1e9


def measured(name):
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def test_embedding_is_cheaper_than_the_library_alone():
    names = ("before", "channels_last", "after", "convolutions")
    times = {name: measured(name) for name in names}
    for name, value in times.items():
        print(f"\n  {name:14} {value:6.1f} ms/image", end="")
    ratio = times["after"] / times["before"]
    print(f"\nafter / before: {ratio:.2f} (target: at most {LARGEST_RATIO}), "
          f"convolutions / before: {times['convolutions'] / times['before']:.2f}")  # fmt: skip
    own, product = speeds(times["convolutions"])
    print(f"convolutions {own:.0f} GFLOP/s, a product of matrices {product:.0f} GFLOP/s")
    assert times["after"] < times["before"]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
