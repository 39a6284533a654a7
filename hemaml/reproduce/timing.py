"""How long new models take for some images, part by part, on the CPU and on a GPU where one is.

Weights are new: that changes no time but that of the clean-up, which has more to do. Nothing is
cached. The parts are those that a model's `predict` marks by `torch.profiler.record_function`.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hemaml.core.errors import ConfigError, DataError, OutOfMemory
from hemaml.core.objective import Model
from hemaml.core.types import UInt8Array
from hemaml.job import resolve_device
from hemaml.nn.allocation import keep_freed_memory
from hemaml.reproduce.less import data_of
from hemaml.reproduce.table import RowPlan

ALL = "seconds"
PASSES = 3
"""That count, after one that compiles and warms up."""
CPU_INFO = Path("/proc/cpuinfo")


def timings(row: RowPlan, num: int) -> dict[str, tuple[float, float]]:
    """Mean and deviation of the seconds for the first images of a row's data, over some passes.

    Args:
        row: Whose model, data and device; `device: auto` is the CPU, and the GPU where one is.
        num: Images, which are predicted together.

    Returns:
        `seconds/cpu`, and of each part, as `superpixels/cpu`; with a GPU, `seconds/gpu` and so on.

    Raises:
        ConfigError: The objective offers no untrained model, or the device is absent.
        DataError: There are fewer images.
        OutOfMemory: A device has no memory for them.
    """
    objective, data = row.plan.objective, data_of(row)
    if objective.untrained is None:
        raise ConfigError(
            "a table of times needs an objective that offers untrained models, but "
            f"{row.plan.experiment.objective} does not. Leave the row out."
        )
    if num > len(data):
        raise DataError(
            f"`timed` must be at most the number of images, but it is {num} and {data.name!r} has "
            f"{len(data)}. Lower it, or choose other data."
        )
    images = [data.images[index] for index in range(num)]
    keep_freed_memory()
    found = {}
    for name, device in _devices(row.plan.experiment.device).items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = objective.untrained(row.plan.params({}), device)
        try:
            model.predict(images)
            passes = [_seconds(model, images) for _ in range(PASSES)]
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise OutOfMemory(f"{num} images need more memory than {device} has left.") from error
        for part in passes[0]:
            values = [each[part] for each in passes]
            found[f"{part}/{name}"] = fmean(values), stdev(values)
    return found


def setting(device: str) -> str:
    """What the times of an experiment's device are of, in words."""
    threads = torch.get_num_threads()
    told = {
        "cpu": f"{threads} thread{'s' if threads > 1 else ''} of {_processor()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }
    return "on " + ", and on ".join(told[name] for name in _devices(device))


def _devices(wanted: str) -> dict[str, str]:
    """Torch devices by the name that their times have."""
    best = resolve_device(wanted)
    own = {"gpu": best} if best != "cpu" else {}
    return own if wanted == "cuda" else {"cpu": "cpu"} | own


def _processor() -> str:
    """Its name, as far as the system tells."""
    told = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if "model name" in line]
    return next(iter(names), platform.processor() or platform.machine())


def _seconds(model: Model, images: Sequence[UInt8Array]) -> Mapping[str, float]:
    """Of one pass, by part."""
    # The profiler tells each start and stop on stderr, which is of use to its developers alone.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU]) as watched, record_function(ALL):
        model.predict(images)
    marked = [event for event in watched.key_averages() if event.is_user_annotation]
    return {event.key: event.cpu_time_total / 1e6 for event in marked}
