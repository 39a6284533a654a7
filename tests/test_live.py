"""What a sweep shows while it runs."""

import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from hemaml.core import gpus
from hemaml.core.search import Event, Outcome
from hemaml.live import LiveView


def play(view):
    point = {"lr": 0.01234, "conv": "gin"}
    view(Event("started", 0, point))
    view(Event("reported", 0, point, 3, 0.81))
    view(Event("ended", 0, point, outcome=Outcome("finished", (0.85,))))
    view(Event("started", 1, point))
    view(Event("ended", 1, point, outcome=Outcome("pruned", reason="stopped by the pruner")))
    view(Event("started", 2, point))
    view(Event("lost", 2, point))
    view(Event("started", 2, point))
    view(Event("reported", 2, point, 1, 0.5))


def test_plain_lines_tell_each_end_and_each_loss(capsys):
    with LiveView("title", "dice", "maximize", 5, plain=True) as view:
        play(view)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/5] trial 0 finished dice=0.8500 lr=0.01234 conv=gin")
    assert lines[1].startswith("[2/5] trial 1 pruned") and "stopped by the pruner" in lines[1]
    assert lines[2] == "trial 2: its worker died; it will be continued"
    assert len(lines) == 3


def test_the_table_shows_running_best_counts_and_time_left():
    view = LiveView("title", "loss", "minimize", 5, plain=True)
    play(view)
    console = Console(width=120, record=True)
    console.print(view._table())
    shown = console.export_text()
    for text in ("title", "2/5", "1 running", "1 finished, 1 pruned", "best 0.8500 (trial 0)",
                 "ETA", "★ 0", "running", "0.5000"):  # fmt: skip
        assert text in shown, text


def test_the_best_follows_the_direction():
    for direction, best in (("maximize", 2), ("minimize", 0)):
        view = LiveView("title", "m", direction, 3, plain=True)
        for number, value in enumerate((0.1, 0.2, 0.3)):
            view(Event("started", number, {}))
            view(Event("ended", number, {}, outcome=Outcome("finished", (value,))))
        assert view.best[0] == best


def test_a_resumed_sweep_counts_what_it_had(capsys):
    with LiveView("title", "dice", "maximize", 5, plain=True) as view:
        view(Event("earlier", 0, {}, outcome=Outcome("finished", (0.9,))))
        assert view._eta() == "ETA ?"
        view(Event("started", 1, {}))
        view(Event("ended", 1, {}, outcome=Outcome("finished", (0.8,))))
    assert capsys.readouterr().out.startswith("[2/5] trial 1 finished")
    assert view.best == (0, 0.9)


def test_where_nobody_watches_only_what_is_asked_for_is_shown(capsys, monkeypatch):
    for set_, plain, lines in (("", False, 3), ("true", False, 0), ("true", True, 3)):
        monkeypatch.setenv("CI", set_)
        with LiveView("title", "dice", "maximize", 5, plain=plain) as view:
            play(view)
        assert len(capsys.readouterr().out.splitlines()) == lines


class Driver:
    """Two GPUs; the second does not tell how busy it is."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, there=True):
        self.there = there

    def nvmlInit(self):  # noqa: N802 - NVIDIA's names
        if not self.there:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index > 1:
            raise self.NVMLError("no such GPU")
        return index

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        return int(name[-1])

    def nvmlDeviceGetUtilizationRates(self, index):  # noqa: N802
        if index == 1:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=87)

    def nvmlDeviceGetMemoryInfo(self, index):  # noqa: N802
        return SimpleNamespace(used=12 << 30, total=80 << 30)


@pytest.mark.parametrize(
    ("there", "visible", "shown"),
    [
        (True, None, "GPU 0 87% 12/80 GiB"),
        (True, "1,0", "GPU 0 87% 12/80 GiB"),
        (True, "GPU-0", "GPU GPU-0 87% 12/80 GiB"),
        (True, "", ""),
        (True, "-1", ""),
        (True, "7", ""),
        (False, None, ""),
    ],
)
def test_the_table_shows_how_busy_visible_gpus_are(monkeypatch, there, visible, shown):
    monkeypatch.setitem(sys.modules, "pynvml", Driver(there=there))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus._visible.cache_clear()
    console = Console(width=140, record=True)
    console.print(LiveView("title", "loss", "minimize", 5)._table())
    gpus._visible.cache_clear()
    told = console.export_text()
    assert shown in told and ("GPU" in told) == bool(shown)


def test_a_reason_in_square_brackets_is_shown_as_it_is():
    view = LiveView("title", "dice", "maximize", 5, plain=True)
    point = {"lr": 0.01}
    view(Event("started", 0, point))
    reason = "no [/data/x] and [type=int_parsing]"
    view(Event("ended", 0, point, outcome=Outcome("failed", reason=reason)))
    console = Console(width=160, record=True)
    console.print(view._table())
    assert reason in console.export_text()
