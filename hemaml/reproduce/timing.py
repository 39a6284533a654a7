"""How long new models take for some images, part by part, on the CPU and on a GPU where one is.

Weights are new: that changes no time but that of the clean-up, which has more to do. Nothing is
cached. The parts are those that a model's `predict` marks by `torch.profiler.record_function`.
"""

import os
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hemaml.core.errors import ConfigError
from hemaml.core.objective import Model
from hemaml.core.types import UInt8Array
from hemaml.nn.allocation import keep_freed_memory
from hemaml.reproduce.table import RowPlan

# The profiler tells each start and stop on stderr, which is of use to its developers alone.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

ALL = "seconds"
PASSES = 3
"""That count, after one that compiles and warms up."""


def timings(row: RowPlan, images: Sequence[UInt8Array]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of the seconds for all images together, over some passes.

    Returns:
        `seconds/cpu`, and of each part, as `superpixels/cpu`; with a GPU, `seconds/gpu` and so on.

    Raises:
        ConfigError: The row's objective has no model without training.
    """
    objective = row.plan.objective
    if objective.untrained is None:
        raise ConfigError(
            f"a table of times needs models that exist before they are trained, but "
            f"{row.plan.experiment.objective} learns from data what it consists of. Leave the row "
            "out."
        )
    keep_freed_memory()
    devices = {"cpu": "cpu"} | ({"gpu": "cuda"} if torch.cuda.is_available() else {})
    found = {}
    for name, device in devices.items():
        model = objective.untrained(row.plan.params({}), device)
        model.predict(images)
        passes = [_seconds(model, images) for _ in range(PASSES)]
        for part in passes[0]:
            values = [each[part] for each in passes]
            found[f"{part}/{name}"] = fmean(values), stdev(values)
    return found


def setting() -> str:
    """What the times are of, in words."""
    threads = torch.get_num_threads()
    told = f"on {threads} thread{'s' if threads > 1 else ''} of this processor"
    if torch.cuda.is_available():
        told += f", and on an {torch.cuda.get_device_name()}"
    return told


def _seconds(model: Model, images: Sequence[UInt8Array]) -> Mapping[str, float]:
    """Of one pass, by part."""
    with profile(activities=[ProfilerActivity.CPU]) as watched, record_function(ALL):
        model.predict(images)
    marked = [event for event in watched.key_averages() if event.is_user_annotation]
    return {event.key: event.cpu_time_total / 1e6 for event in marked}
