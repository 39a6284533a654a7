"""Somebody is told, by command or by URL, and a failure of that is no failure of the job."""

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from hemaml.core import notify as module
from hemaml.core.notify import notify

EVENT = {"event": "promotion", "model": "leukemia", "version": 3}


def test_nobody_is_told_where_nobody_is_named(monkeypatch):
    monkeypatch.delenv("HEMAML_NOTIFY", raising=False)
    assert notify(EVENT) == "none"


def test_a_command_gets_the_event_on_its_standard_input(monkeypatch, tmp_path):
    script = tmp_path / "tell me.py"
    script.write_text(f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())")
    monkeypatch.setenv("HEMAML_NOTIFY", f"{sys.executable} '{script}'")
    assert notify(EVENT) == "sent"
    assert json.loads((tmp_path / "told").read_text()) == EVENT


def test_a_url_gets_the_event_as_json(monkeypatch):
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("HEMAML_NOTIFY", f"http://127.0.0.1:{server.server_port}/hook?key=abc")
        assert notify(EVENT) == "sent"
        thread.join()
    assert received == [("application/json", EVENT)]


def test_failures_are_told_without_secrets_and_never_raised(monkeypatch, caplog):
    for target in (
        "http://127.0.0.1:1/hook?key=abc",
        "http://[broken?key=abc",
        "/nowhere/command --key=abc",
        f"{sys.executable} -c 'raise SystemExit(3)' --key=abc",
        "an 'open quote --key=abc",
    ):
        monkeypatch.setenv("HEMAML_NOTIFY", target)
        assert notify(EVENT).startswith("failed: ")
    assert len(caplog.records) == 5 and "abc" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\n", ["HTTPError"]),
        (b"this is no HTTP\r\n\r\n", ["BadStatusLine"]),
        (b"", ["RemoteDisconnected", "ConnectionResetError"]),
        (None, ["TimeoutError"]),
    ],
    ids=["error", "no http", "hangs up", "hangs"],
)
def test_a_server_that_fails_is_no_failure_of_the_job(monkeypatch, answer, told):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                time.sleep(1 if answer is None else 0.05)
                connection.sendall(answer or b"")

        thread = Thread(target=serve)
        thread.start()
        monkeypatch.setenv("HEMAML_NOTIFY", f"http://127.0.0.1:{server.getsockname()[1]}/hook")
        assert notify(EVENT) in [f"failed: {kind}" for kind in told]
        thread.join()


def test_a_command_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    monkeypatch.setenv("HEMAML_NOTIFY", "sleep 30")
    assert notify(EVENT) == "failed: TimeoutExpired"


def test_a_command_may_go_on_in_the_background(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 5)
    monkeypatch.setenv("HEMAML_NOTIFY", "sh -c 'sleep 8 &'")
    assert notify(EVENT) == "sent"


def test_values_that_json_does_not_know_are_told_in_words(monkeypatch):
    monkeypatch.setenv("HEMAML_NOTIFY", "true")
    assert notify({**EVENT, "path": socket}) == "sent"
