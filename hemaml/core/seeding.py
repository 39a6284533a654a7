"""Seeds that are derived, never drawn, so that a trial replays from its record."""

import hashlib
import random

import numpy as np


def derive_seed(*parts: object) -> int:
    """A seed of 31 bits that depends on every part and on nothing else.

    `derive_seed(sweep_seed, "trial", 7)` is the same on every machine and Python version.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def seed_everything(seed: int) -> None:
    """Seeds `random`, NumPy's global state and torch (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
