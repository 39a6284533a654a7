"""Models that cost nothing behind a real server, and a client of it."""

import io
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.client import HTTPMessage
from typing import NamedTuple

import numpy as np
from PIL import Image

from hemaml.core.errors import StoreError
from hemaml.core.objective import load_objective
from hemaml.serve.answers import ModelFacts, SplitFacts
from hemaml.serve.champions import Champions
from hemaml.serve.server import listen
from hemaml.serve.settings import ServeSettings
from hemaml.tracking.opened_model import OpenedModel
from hemaml.tracking.registry import Version

CLASSES = ("no", "yes")
PREDICT = "/api/v1/predict"


class Constant:
    """Says the same of every image; takes its time for it."""

    def __init__(self, share, seconds=0.0):
        self.share, self.seconds = share, seconds

    def predict(self, images):
        time.sleep(self.seconds)
        return [np.array([1 - self.share, self.share], dtype=np.float32) for _ in images]


def share_of(number):
    """What version `number` says of every image."""
    return number / 1000


class FakeRegistry:
    """Whatever a test wants of a registry: what aliases mean, and whether it is there."""

    def __init__(self, seconds=0.0):
        self.meant = {"stub": 1}
        self.away = False
        self.broken = set()
        self.seconds = seconds
        self.loaded = []

    def wanted(self):
        if self.away:
            raise StoreError("the store must answer, but it is away. Wait.")
        return [Version(name, number, "run") for name, number in self.meant.items()]

    def opened(self, version):
        self.loaded.append(version.number)
        if version.number in self.broken:
            raise StoreError("weights must be there, but they are gone. Look.")
        model = Constant(share_of(version.number), self.seconds)
        objective = load_objective("leukemia.svm")
        return OpenedModel("leukemia.svm", objective, model, CLASSES, False, None)

    def facts(self, version, opened):
        split = SplitFacts(kind="grouped", leaky=False, text="Groups are whole.")
        return ModelFacts(
            name=version.name, version=version.number, uri=version.uri, alias="champion",
            task="leukemia", kind="classification", objective=opened.name, data="stub",
            classes=list(opened.classes), metrics={}, split=split, card="", explains=None,
            novelty=False, calibration=None,
        )  # fmt: skip


class Reply(NamedTuple):
    status: int
    body: dict
    headers: HTTPMessage


class Client:
    """Asks one server."""

    def __init__(self, address, champions=None):
        self.address, self.champions = address, champions

    def ask(self, path, body=None, headers=None, method=None):
        """Status, JSON (or bytes) and headers of an answer, whatever its status."""
        request = urllib.request.Request(
            self.address + path, data=body, headers=headers or {}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return _reply(answer.status, answer)
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error)

    def send(self, path, files, fields=None, headers=None):
        """Posts a form: files are (field, name, content)."""
        body, kind = form(files, fields or {})
        return self.ask(path, body, {"Content-Type": kind, **(headers or {})})

    def predict(self, *contents, **fields):
        files = [("images", f"{i}.png", content) for i, content in enumerate(contents)]
        return self.send(PREDICT, files, fields)


def _reply(status, answer):
    content = answer.read()
    if "json" in answer.headers.get("Content-Type", ""):
        content = json.loads(content)
    return Reply(status, content, answer.headers)


def form(files, fields):
    """Body and content type of a multipart form."""
    mark, parts = b"----hemaml-boundary", []
    for field, name, content in files:
        head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        parts.append(head.encode("utf-8", "surrogateescape") + content)
    for field, text in fields.items():
        parts.append(f'Content-Disposition: form-data; name="{field}"\r\n\r\n{text}'.encode())
    joined = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts)
    return joined + b"--" + mark + b"--\r\n", f"multipart/form-data; boundary={mark.decode()}"


def picture(kind="PNG", side=24, seed=0):
    """A file with noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@contextmanager
def served(registry, **settings):
    """A real server of a registry on a free port; its client."""
    checked = ServeSettings(
        **{"port": 0, "look_every": 0.05, "requests_per_minute": 10**6} | settings
    )
    champions = Champions(registry, checked.look_every)
    champions.start()
    with running(listen(champions, checked)) as client:
        yield client


@contextmanager
def running(server):
    """A server that answers, in a thread of this process; its client."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Client(server.address, server.champions)
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


def wait_for(holds, seconds=60):
    """Until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
