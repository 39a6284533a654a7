"""A store with two sweeps and two promotions, its UI as `hemaml ui` serves it, and a browser."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from copy import deepcopy
from types import SimpleNamespace

import pytest
from chromium import chromium

NAME = "stub-stub"
COMMAND = (  # `hemaml`, in a process whose package has the stub for its only objective
    "import hemaml.record, hemaml.cli; hemaml.record.objective_names = lambda: ['stub.stub']; "
    "hemaml.cli.main()"
)
WAIT_S = 240
"""For a server that starts on a machine that is busy with other tests."""
FOREIGN = re.compile(r"users/current|ResizeObserver loop")
"""What MLflow's own pages report on every visit: an endpoint of its accounts, a layout notice."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder for the module, with no settings but its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ui")
        for name in ("HEMAML_DATA", "MLFLOW_TRACKING_URI", "HEMAML_STUDY_STORAGE"):
            patch.delenv(name, raising=False)
        patch.setenv("HEMAML_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def store(place):
    """A finished sweep, and a champion that followed another."""
    import stub

    import hemaml
    import hemaml.core.objective
    import hemaml.record
    from hemaml.core.experiment import plan_from

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "hemaml.objectives.stub.stub", stub)
        for module in (hemaml.core.objective, hemaml.record):
            patch.setattr(module, "objective_names", lambda: ["stub.stub"])
        sweep = hemaml.sweep(plan_from(stub.EXPERIMENT, stub.SPACE))
        for x in (0.4, 0.9):
            document = deepcopy(stub.EXPERIMENT) | {"params": {"epochs": 2, "x": x}}
            hemaml.promote(NAME, run=hemaml.run(plan_from(document, None)).run_id)
        trials = sweep.trials().sort_values("score", ascending=False)
        yield SimpleNamespace(sweep=sweep, trials=trials, task=hemaml.record.trackers()[0])


@pytest.fixture(scope="module")
def printed(store):
    """What `hemaml ui` prints before its server answers; the server runs as long as the module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "ui", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        lines = []
        for line in server.stdout:
            lines.append(line.rstrip())
            if line.startswith("open "):
                break
        address = f"http://127.0.0.1:{port}"
        _wait_for(server, address)
        yield SimpleNamespace(address=address, port=port, text="\n".join(lines))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        server.stdout.close()


def _wait_for(server, address):
    started = time.monotonic()
    while time.monotonic() - started < WAIT_S:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {address} in {WAIT_S} s")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser, printed):
    """Opens an address below the server's; nothing that a page asks for may be missing."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    seen = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
    context.add_init_script(f"try {{ {seen} }} catch (error) {{}}")  # frames have no storage
    page = context.new_page()
    page.set_default_timeout(WAIT_S * 1000 // 3)
    faults = []
    page.on("console", lambda m: m.type == "error" and faults.append(f"{m.text} {m.location}"))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status} {r.url}"))

    def open_page(address):
        assert address.startswith(("#/", printed.address))
        page.goto(address if address.startswith("http") else f"{printed.address}/{address}")
        return page

    yield open_page
    context.close()
    assert [fault for fault in faults if not FOREIGN.search(fault)] == []
