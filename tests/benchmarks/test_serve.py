"""What the server costs: against the bare model, under a crowd, and over many requests.

`pytest tests/benchmarks/test_serve.py -s` prints it. The model is a ResNet-18 on 224 x 224 pixels,
with the reference of its training images; the server runs in a process of its own.
"""

import http.client
import json
import os
import statistics
import threading
import time

import numpy as np
import psutil
import pytest
from serve.fakes import PREDICT, form
from serve.stores import trained
from serve.test_champions import as_png, command

import hemaml
from hemaml.core.settings import tracking_uri
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.opened_model import open_registered

RATIO, CLIENTS, CROWD_S, REQUESTS, GROWTH = 1.3, 50, 60, 2000, 1.1
TIMED = 80
NAME = "lymphoma"
FREE = ("--set", "requests_per_minute=1000000")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with a champion of 224 x 224 pixels, and the working folder of all that follows."""
    folder = tmp_path_factory.mktemp("serve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlruns/mlflow.db")
        patch.setenv("HEMAML_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        run = trained(NAME, size=224, epochs=1)
        hemaml.promote(NAME, run=run, force="a benchmark")
        yield folder


@pytest.fixture(scope="module")
def server(place):
    with command(place, NAME, *FREE) as (client, process, _):
        yield client, psutil.Process(process.pid)


def sent(seed=0):
    """An image of 224 x 224 and a form that has it."""
    image = np.random.default_rng(seed).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    image[40:180, 40:180] = (130, 60, 150)
    return image, form([("images", "cell.png", as_png(image))], {"model": NAME})


class Kept:
    """A connection that is kept, as a browser's or a program's."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)

    def close(self):
        self.connection.close()

    def predict(self, body, kind):
        self.connection.request("POST", PREDICT, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        return answer.status, answer.read(), answer.headers


def test_one_image_against_the_bare_model(server):
    client, _ = server
    image, (body, kind) = sent()
    opened = open_registered(MlflowTracker(tracking_uri(), NAME), f"models:/{NAME}/1")
    kept, times = Kept(client.address), {"bare": [], "served": []}
    for index in range(TIMED + 10):
        started = time.perf_counter()
        (bare,) = opened.model.predict([image])
        between = time.perf_counter()
        status, content, _ = kept.predict(body, kind)
        ended = time.perf_counter()
        assert status == 200
        if index >= 10:
            times["bare"].append(between - started)
            times["served"].append(ended - between)
    kept.close()
    (result,) = json.loads(content)["results"]
    np.testing.assert_allclose(list(result["probabilities"].values()), bare, atol=1e-5)
    assert result["novelty"] is not None
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    ratio = medians["served"] / medians["bare"]
    print(
        f"\n/predict, one image of 224 x 224: {medians['served']:.1f} ms, bare model "
        f"{medians['bare']:.1f} ms: {ratio:.2f} times (at most {RATIO})"
    )
    assert ratio <= RATIO


def test_a_crowd_of_clients_for_a_minute(server):
    client, _ = server
    _, (body, kind) = sent()
    found, end = [], time.monotonic() + CROWD_S

    def ask():
        kept = Kept(client.address)
        while time.monotonic() < end:
            started = time.perf_counter()
            status, _, headers = kept.predict(body, kind)
            wait = headers["Retry-After"]
            found.append((status, time.perf_counter() - started, wait))
            if status == 503:
                time.sleep(float(wait))
        kept.close()

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = sorted(seconds for status, seconds, _ in found if status == 200)
    refused = [wait for status, _, wait in found if status == 503]
    print(
        f"\n{CLIENTS} clients for {CROWD_S} s: {len(good)} answers "
        f"({len(good) / CROWD_S:.0f} a second), median {statistics.median(good) * 1000:.0f} ms, "
        f"95th percentile {good[int(0.95 * len(good))] * 1000:.0f} ms; "
        f"{len(refused)} times 503, each with Retry-After"
    )
    assert {status for status, _, _ in found} <= {200, 503} and all(refused)


def test_memory_over_many_requests(server):
    client, process = server
    kept = Kept(client.address)
    forms = [sent(seed)[1] for seed in range(20)]
    before = 0.0
    for index in range(REQUESTS):
        status, _, _ = kept.predict(*forms[index % len(forms)])
        assert status == 200
        if index == 200:
            before = process.memory_info().rss / 1e6
    kept.close()
    after = process.memory_info().rss / 1e6
    print(
        f"\n{REQUESTS} requests: {before:.0f} MB after the first 200, {after:.0f} MB at the end "
        f"({after / before:.2f} times, at most {GROWTH})"
    )
    assert after / before <= GROWTH


def test_the_reference_of_training_images_costs_little(place):
    """What logging a model takes longer, and how large it is, for images of 224 x 224."""
    from hemaml.ops.novelty import FILE, Reference
    from hemaml.registering import REFERENCE

    opened = open_registered(MlflowTracker(tracking_uri(), NAME), f"models:/{NAME}/1")
    images = [sent(seed)[0] for seed in range(REFERENCE)]
    started = time.perf_counter()
    _, features = opened.model.predict_and_embed(images)
    seen = time.perf_counter()
    reference = Reference.of(features, [f"p{i // 10}" for i in range(REFERENCE)])
    reference.save(place)
    ended = time.perf_counter()
    size = os.stat(place / FILE).st_size / 1e6
    print(
        f"\nreference of {REFERENCE} images: {seen - started:.1f} s to see them, "
        f"{ended - seen:.2f} s for distances and file, {size:.2f} MB"
    )
