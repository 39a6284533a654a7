"""How busy the GPUs of this machine are, as NVIDIA's management library tells."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU at this moment, whoever uses it.

    Attributes:
        name: Its index, or its UUID where `CUDA_VISIBLE_DEVICES` has those.
        busy: Share of the latest moments in which it computed, 0 to 1.
        used_gib: Memory in use.
        total_gib: Memory in all.
    """

    name: str
    busy: float
    used_gib: float
    total_gib: float

    def __str__(self) -> str:
        return f"GPU {self.name} {self.busy:.0%} {self.used_gib:.0f}/{self.total_gib:.0f} GiB"


def gpu_use() -> list[GpuUse]:
    """Of each GPU that `CUDA_VISIBLE_DEVICES` leaves visible; none where there is no driver."""
    import pynvml

    found = []
    for name, handle in _visible():
        try:
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError:  # a slice of a GPU does not tell, and one may be lost
            continue
        found.append(GpuUse(name, busy, memory.used / GIB, memory.total / GIB))
    return found


@cache
def _visible() -> list[tuple[str, Any]]:
    """Names and handles."""
    import pynvml

    try:
        pynvml.nvmlInit()
        names = [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is not None:
            names = [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
        return [(name, _handle(name)) for name in names]
    except pynvml.NVMLError:
        return []


def _handle(name: str) -> Any:
    import pynvml

    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)
