"""Peak memory of a stretch of work in this process."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager: the largest memory in use while inside, in megabytes (1e6 bytes).

    On a GPU, what torch's allocator held there. On the CPU, the process's resident memory, whose
    peak Linux can reset; where it does not, the peak since the process began: an upper bound.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device if device.startswith("cuda") else None
        self.mb = 0.0

    def __enter__(self) -> Self:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            with suppress(OSError):  # absent, or forbidden in some containers
                CLEAR_REFS.write_text("5")  # resets the high-water mark, see proc(5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cuda:
            import torch

            self.mb = torch.cuda.max_memory_allocated(self._cuda) / 1e6
        else:
            self.mb = _resident_peak() / 1e6


def _resident_peak() -> int:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
