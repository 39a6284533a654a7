"""Real champions of a real store behind the real command: real images, swaps, absences."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from PIL import Image
from promotions import mlflow_server
from serve.fakes import Client, picture, running, wait_for
from serve.stores import KINDS, crowned, trained

import hemaml
from hemaml.core import settings
from hemaml.core.errors import UnknownName
from hemaml.data.decode import decode_image
from hemaml.registering import register
from hemaml.serve.segmentation import outlines
from hemaml.serve.server import start
from hemaml.serve.settings import ServeSettings
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.opened_model import open_registered

pytestmark = pytest.mark.slow
START_S = 240
OFTEN = ("--set", "look_every=0.2", "--set", "requests_per_minute=1000000")
PATTERNS = {
    "leukemia": ("C-NMC", "**/*.bmp"),
    "lymphoma": ("malignant_lymphoma", "**/*.jpg"),
    "wbc_segmentation": ("segmentation_WBC", "Dataset 1/*.bmp"),
    "wbc_type": ("segmentation_WBC", "Dataset 2/*.bmp"),
}
"""By registered name: where real images of its task lie."""


@pytest.fixture
def client(in_store):
    """A server of the store's champions in this process."""
    with running(start(ServeSettings(port=0, look_every=0.2))) as found:
        yield found


def model_of(version_uri):
    """The model of a version, opened beside the server."""
    task = KINDS[version_uri.removeprefix("models:/").partition("/")[0]][0].partition(".")[0]
    return open_registered(MlflowTracker(settings.tracking_uri(), task), version_uri)


def pixels(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image)


def test_what_is_told_of_the_champions(client):
    models = {one["name"]: one for one in client.ask("/api/v1/models").body["models"]}
    assert set(models) == set(KINDS)
    explains = {name: one["explains"] for name, one in models.items()}
    assert explains == {
        "leukemia": "neighbours", "lymphoma": "grad_cam", "wbc_segmentation": "contours",
        "wbc_type": None,
    }  # fmt: skip
    for name, one in models.items():
        assert (one["version"], one["alias"], one["data"] != "") == (1, "champion", True)
        assert one["objective"] == KINDS[name][0] and "**Intended use.**" in one["card"]
        assert one["split"]["leaky"] is False and one["split"]["text"]
        segments = one["kind"] == "segmentation"
        assert one["novelty"] is not segments
        accuracy = one["metrics"]["accuracy"]
        assert accuracy["part"] == "held out"
        if accuracy["low"] is not None:  # the held-out part of one patient has no interval
            assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        assert (one["calibration"] is None) is segments
        if not segments:
            assert one["calibration"] == {
                "ece": one["metrics"]["ece"]["value"], "part": "held out",
            }  # fmt: skip
    assert any(one["metrics"]["accuracy"]["low"] is not None for one in models.values())
    tasks = client.ask("/api/v1/tasks").body["tasks"]
    assert {task["name"]: task["kind"] for task in tasks}["wbc_segmentation"] == "segmentation"


@pytest.mark.parametrize("name", KINDS)
def test_real_images_are_judged_as_the_model_itself_does(client, real_data, name):
    folder, pattern = PATTERNS[name]
    files = sorted((real_data / folder).glob(pattern))[:2]
    if not files:
        pytest.skip(f"needs images of {folder}")
    reply = client.predict(*[file.read_bytes() for file in files], model=name)
    assert reply.status == 200, reply.body
    opened = model_of(f"models:/{name}/1")
    images = [decode_image(file) for file in files]
    for image, values, result in zip(
        images, opened.model.predict(images), reply.body["results"], strict=True
    ):
        assert (result["height"], result["width"]) == image.shape[:2]
        if name == "wbc_segmentation":
            check_segmentation(result["segmentation"], values, opened.classes)
            assert result["novelty"] is None and result["label"] is None
            continue
        found = [result["probabilities"][c] for c in opened.classes]
        np.testing.assert_allclose(found, values, atol=1e-5)
        assert result["label"] == opened.classes[int(values.argmax())]
        assert result["novelty"]["unlike"] is (result["novelty"]["percentile"] > 99)


def check_segmentation(found, values, classes):
    """Areas are those of the mask; the outlines enclose, holes left out, as many pixels."""
    mask = values.argmax(axis=2)
    for index, name in enumerate(classes):
        area = int((mask == index).sum())
        assert found["areas"][name] == area
        assert found["fractions"][name] == pytest.approx(area / mask.size)
    assert set(found["contours"]) == set(classes[1:])
    for name, polygons in found["contours"].items():
        signed = sum(shoelace(np.array(polygon)) for polygon in polygons)
        assert abs(signed) == pytest.approx(found["areas"][name], rel=0.1, abs=40)


def test_the_largest_outlines_are_kept_where_there_are_too_many_corners():
    mask = np.zeros((60, 60), dtype=np.uint8)
    mask[5:40, 5:40] = 1  # few corners, much area
    mask[45:57:2, 1:59] = 1  # stripes
    mask[46:57:4, 1:3] = 1
    every = outlines(mask)
    areas = [abs(shoelace(np.array(line))) for line in every]
    assert len(every) > 2 and areas == sorted(areas, reverse=True)
    (kept,) = outlines(mask, most=len(every[0]))
    assert kept == every[0] and areas[0] > 1000
    ragged = np.zeros((60, 60), dtype=np.uint8)
    ragged[5:40, 5:40:2] = ragged[20, 5:40] = 1
    ragged[50:55, 50:55] = 1
    both = outlines(ragged)
    assert len(both) == 2 and len(both[0]) > len(both[1])
    assert outlines(ragged, most=len(both[0]) - 1) == [both[1]], "the one that fits, not none"


def shoelace(xy):
    (x, y), (x2, y2) = xy.T, np.roll(xy, -1, axis=0).T
    return float((x * y2 - x2 * y).sum() / 2)


def test_heat_neighbours_and_outlines(client):
    sample = client.ask("/api/v1/samples/monocyte.png").body

    def why(name, status=200, **fields):
        reply = client.send(
            "/api/v1/explain", [("image", "a.png", sample)], {"model": name, **fields}
        )
        assert reply.status == status, reply.body
        return reply.body

    cam = why("lymphoma")
    assert cam["explanation"]["target"] == cam["result"]["label"]
    heat = pixels(cam["explanation"]["heat"])
    assert heat.shape == (224, 224, 4) and heat[..., 3].max() > 200 and heat[..., 3].min() == 0
    assert cam["explanation"]["shown"] == 1
    other = why("lymphoma", target="mononuclear", method="layercam")["explanation"]
    assert (other["target"], other["method"]) == ("mononuclear", "layercam")
    assert "known: granulocyte" in why("lymphoma", 404, target="lymph")["detail"]
    assert "gradcam++" in why("lymphoma", 404, method="gradcamm")["detail"]
    for name in ("leukemia", "wbc_segmentation"):
        assert "Grad-CAM" in why(name, 422, method="gradcam++")["rule"]

    near = why("leukemia")["explanation"]
    assert near["k"] == len(near["neighbours"]) == 4
    weights = [one["weight"] for one in near["neighbours"]]
    assert weights == sorted(weights, reverse=True)
    for one in near["neighbours"]:
        assert one["label"] in ("granulocyte", "mononuclear") and -1 <= one["similarity"] <= 1.001
        assert pixels(one["picture"]).shape == (48, 48, 3)

    seen = why("wbc_segmentation")
    assert seen["explanation"]["segmentation"] == seen["result"]["segmentation"]
    overlay = pixels(seen["explanation"]["overlay"])
    areas = seen["result"]["segmentation"]["areas"]
    assert int((overlay[..., 3] > 0).sum()) == areas["cytoplasm"] + areas["nucleus"]
    assert "explanation needs" in why("wbc_type", 422)["detail"]


def test_noise_is_unlike_the_training_images_and_they_are_not(client):
    data = hemaml.read_dataset(KINDS["leukemia"][1])
    own = [as_png(image) for image in data.images[:16]]
    noise = [picture(side=48, seed=seed) for seed in range(4)]
    for name in ("leukemia", "lymphoma"):
        found = [r["novelty"] for r in client.predict(*own, *noise, model=name).body["results"]]
        assert sum(one["unlike"] for one in found[:16]) <= 2
        assert all(one["unlike"] and "Unlike" in one["text"] for one in found[16:]), name


def as_png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@contextmanager
def command(folder, *arguments, **environment):
    """`hemaml serve` in a process of its own; its client, process and first lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hemaml.cli", "serve", "--port", "0", *arguments],
        cwd=folder, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.match(r"open (\S+)", line):
                yield Client(found.group(1)), process, lines
                break
        else:
            pytest.fail(process.stderr.read())
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


def test_an_alias_that_moves_moves_the_answers_without_a_lost_request(in_store):
    """The command in a process of its own; the promotions here, while threads ask all the while."""
    answers, ended = [], threading.Event()
    image = picture(side=48)
    with command(in_store, "lymphoma", *OFTEN) as (client, process, lines):
        assert any("models:/lymphoma/1" in line for line in lines)

        def ask():
            while not ended.is_set():
                reply = client.predict(image)
                answers.append((reply.status, reply.body))
                time.sleep(0.2)  # else they take both processors from the training

        def answers_by(version):
            return answers and answers[-1][1]["model"]["uri"] == version.uri

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        versions = []
        for share in (0.1, 0.2):
            versions.append(crowned("lymphoma", dropout=share).version)
            wait_for(lambda: answers_by(versions[-1]), seconds=START_S)
        hemaml.rollback("lymphoma", reason="a test")
        wait_for(lambda: answers_by(versions[0]), seconds=START_S)
        ended.set()
        for thread in threads:
            thread.join()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()
    assert {status for status, _ in answers} == {200}
    expected = {}
    for _, body in answers:
        uri = body["model"]["uri"]
        if uri not in expected:
            expected[uri] = model_of(uri).model.predict([np.array(Image.open(io.BytesIO(image)))])
        found = list(body["results"][0]["probabilities"].values())
        np.testing.assert_allclose(found, expected[uri][0], atol=1e-5)
    assert {"models:/lymphoma/1", versions[0].uri, versions[1].uri} == set(expected)


def test_a_registry_that_is_gone_leaves_the_models(in_store, tmp_path):
    """It is a real MLflow server on a copy of the store, which is ended."""
    shutil.copy(in_store / "mlruns" / "mlflow.db", tmp_path / "server.db")
    registry = ExitStack()
    uri = registry.enter_context(mlflow_server(tmp_path))
    with registry, command(tmp_path, "wbc_type", *OFTEN, MLFLOW_TRACKING_URI=uri) as found:
        client = found[0]
        health = client.ask("/health").body
        assert health["status"] == "ok" and health["registry"]["reachable"]
        before = client.predict(picture()).body["results"]
        registry.close()
        wait_for(lambda: client.ask("/health").body["status"] == "degraded", seconds=START_S)
        state = client.ask("/health").body["registry"]
        assert state["reachable"] is False and uri in state["problem"]
        assert client.predict(picture()).body["results"] == before


def test_one_version_by_its_number_stays_whatever_becomes_of_the_alias(in_store):
    options = ServeSettings(port=0, models=("models:/wbc_type/1",), look_every=0.1)
    with running(start(options)) as client:
        (model,) = client.ask("/api/v1/models").body["models"]
        assert (model["uri"], model["alias"]) == ("models:/wbc_type/1", None)
        assert client.predict(picture()).body["model"]["version"] == 1
    with pytest.raises(UnknownName, match="wbc_typo"):
        start(ServeSettings(port=0, models=("wbc_typo",)))


def test_a_version_that_predicts_otherwise_than_in_training_never_answers(in_store):
    """Its predictions of training are exchanged on the disk: the champion before goes on."""
    run = trained("wbc_type", epochs=1)
    tracker = MlflowTracker(settings.tracking_uri(), "wbc_type")
    version = register(tracker, run, "wbc_type")
    with running(start(ServeSettings(port=0, models=("wbc_type",), look_every=0.2))) as client:
        number = client.predict(picture()).body["model"]["version"]
        for file in in_store.glob(f"mlruns/artifacts/**/{_model_id(tracker, run)}/**/parity/0.png"):
            Image.fromarray(np.zeros((48, 48, 3), dtype=np.uint8)).save(file)
        hemaml.promote("wbc_type", version=version.number, force="a test")
        time.sleep(1)
        assert client.predict(picture()).body["model"]["version"] == number


def _model_id(tracker, run):
    return tracker.get(run).tags["model"].removeprefix("models:/")


def test_help_does_not_import_the_server():
    heavy = ["flask", "waitress", "torch", "mlflow"]
    code = f"import sys, hemaml.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
