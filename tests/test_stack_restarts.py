"""How the stack keeps its servers running; stand-ins for them listen on their ports."""

import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from serve.fakes import wait_for
from stack import STACK, processes_of

SERVERS = {
    "database": "POSTGRES_PORT", "mlflow": "MLFLOW_PORT", "ray": "RAY_PORT",
    "studies": "STUDIES_PORT", "page": "PAGE_PORT",
}  # fmt: skip
ENTRYPOINT = """#!/bin/sh
echo started >>{name}.starts
[ "${{1:-}}" != account ] || exit 0
[ ! -e {name}.broken ] || exit 3
trap '{on_end}' TERM INT
python -m http.server --bind 127.0.0.1 --directory {folder} ${port} &
wait $! || wait $! || wait $!
"""


@pytest.fixture
def script(tmp_path):
    """A copy of the stack's script; the argument is what each server does when told to end."""

    def make(on_end="kill $!"):
        entrypoints = tmp_path / "docker" / "entrypoints"
        entrypoints.mkdir(parents=True)
        for name, port in SERVERS.items():
            entrypoint = entrypoints / f"{name}.sh"
            entrypoint.write_text(
                ENTRYPOINT.format(name=name, port=port, on_end=on_end, folder=tmp_path)
            )
            entrypoint.chmod(0o755)
        return shutil.copy(STACK, entrypoints.parent)

    return make


@pytest.fixture
def stack(script, tmp_path):
    """The stack in this process, with little patience, and the outcome of its watch."""
    module = imported(script())
    module.PAUSE_S, module.STEADY_S, module.HOPELESS_S = 0.2, 1, 4
    stack = module.Stack(tmp_path / "kept")
    with ThreadPoolExecutor(1) as pool:
        try:
            stack.start_database()
            stack.start_others()
            watched = pool.submit(stack.watch)
            yield stack, watched
            break_server(stack, "mlflow")  # which ends the watch
            watched.exception(timeout=60)
        finally:
            stack.stop()


def imported(path):
    spec = importlib.util.spec_from_file_location("stack_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def break_server(stack, name):
    (stack.folder / f"{name}.broken").touch()
    stack.servers[name].kill()


def listens(stack, name):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(stack.settings[SERVERS[name]]))) == 0


def starts(stack, name):
    return len((stack.folder / f"{name}.starts").read_text().splitlines())


def test_a_server_that_cannot_start_for_a_while_is_awaited_and_the_others_stay(stack):
    stack, watched = stack
    others = {name: server.pid for name, server in stack.servers.items() if name != "mlflow"}
    break_server(stack, "mlflow")
    wait_for(lambda: starts(stack, "mlflow") >= 4)
    (stack.folder / "mlflow.broken").unlink()
    wait_for(lambda: listens(stack, "mlflow") or watched.done())
    assert not watched.done()
    assert {name: stack.servers[name].pid for name in others} == others


def test_the_stack_gives_up_on_a_server_that_never_comes_back(stack):
    stack, watched = stack
    break_server(stack, "mlflow")
    with pytest.raises(SystemExit, match=r"mlflow must run, but it has ended again and again"):
        watched.result(timeout=60)
    assert starts(stack, "mlflow") > 2


def test_a_later_start_has_the_ports_of_the_first_unless_others_are_named(script, tmp_path):
    module = imported(script())
    first = module.Stack(tmp_path / "kept").settings
    assert module.Stack(tmp_path / "kept").settings == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first["MLFLOW_PORT"])))
        other.listen()
        with pytest.raises(SystemExit, match="MLFLOW_PORT must be a free port of 127.0.0.1"):
            module.Stack(tmp_path / "kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_PORT", str(free := free_port()))
        assert module.Stack(tmp_path / "kept").settings["RAY_PORT"] == str(free)
        patch.setenv("RAY_PORT", "ray")
        with pytest.raises(SystemExit, match="RAY_PORT must be a free port .* but got ray"):
            module.Stack(tmp_path / "kept")
    assert module.Stack(tmp_path / "kept").settings == {**first, "RAY_PORT": str(free)}


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_server(script, tmp_path):
    folder = tmp_path / "kept"
    log = tmp_path / "log"
    with log.open("w") as told:
        command = [sys.executable, str(script(on_end=": > told-to-end")), str(folder)]
        process = subprocess.Popen(command, stdout=told, stderr=told)
    try:
        wait_for(lambda: "--address" in log.read_text())
        process.send_signal(signal.SIGINT)
        wait_for((folder / "told-to-end").exists)
        assert process.poll() is None, "it waits for its servers"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT
    finally:
        process.kill()
        process.wait()
    assert not processes_of(str(tmp_path))
