"""Somebody is told, by command or by URL, and a failure of that is no failure of the job."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

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
