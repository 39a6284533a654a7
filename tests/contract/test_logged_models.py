"""What every objective promises as a logged model: the live model's answers, in any process.

Each one's first example is logged and registered; others load and serve it with pickle denied.
"""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_objectives import fitted, fold_of

from hemaml.core.errors import ModelError
from hemaml.core.objective import load_objective, objective_names
from hemaml.core.predictions import LIVE, NUM_IMAGES, LivePredictions
from hemaml.data.decode import decode_image
from hemaml.tracking.logged_model import describe_model, log_model, parity
from hemaml.tracking.mlflow_tracker import MlflowTracker

NUM = 4
SERVED = ("leukemia.resnet18_gcn", "leukemia.svm", "wbc_segmentation.smgnn")
LOADER = """
import json, os, sys
import mlflow, numpy as np
from PIL import Image
found = {}
for name, kinds in json.load(open(sys.argv[1])).items():
    model = mlflow.pyfunc.load_model(f"models:/{name}/1")
    sent = {**kinds, "arrays": [np.asarray(Image.open(path)) for path in kinds["paths"]]}
    sent["lists"] = [image.tolist() for image in sent["arrays"]]
    answers = {kind: model.predict(images) for kind, images in sent.items()}
    answers["one by one"] = [model.predict([image])[0] for image in sent["arrays"]]
    answers["none"] = model.predict([])
    found[name] = {kind: [np.asarray(v).tolist() for v in values]
                   for kind, values in answers.items()}
print(json.dumps(found))
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def encoded(image, kind):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def images_of(name):
    """Four images, of which one has another shape."""
    data = fold_of(load_objective(name).task.name).val
    return [*data.images[: NUM - 1], data.images[NUM - 1][:-7, 3:].copy()]


def logged(tracker, name, folder):
    """Logs the last model of the first example of an objective as a run's; the model's URI."""
    model, data = fitted(name, 0)[0][-1].model, fold_of(load_objective(name).task.name).val
    folder.mkdir(parents=True)
    (folder / "weights").mkdir()
    model.save(folder / "weights")
    LivePredictions(model.predict(data.images[:NUM_IMAGES]), "cpu").save(folder / LIVE)
    run = tracker.start("trained", {})
    run.log_metrics({"score": 0.5})
    run.flush()
    uri = log_model(
        tracker, run.id, objective=name, weights=folder / "weights", live=folder / LIVE, data=data
    )
    return run.id, uri


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in which each objective's name is a registered model; its tracker."""
    folder = tmp_path_factory.mktemp("logged")
    tracker = MlflowTracker(f"sqlite:///{folder}/mlruns/mlflow.db", "task")
    for name in objective_names():
        run_id, uri = logged(tracker, name, folder / name)
        assert tracker.register(run_id, uri, name, {}) == f"models:/{name}/1"
    return tracker


def environment(tracker):
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracker.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow looks for `uvicorn` as in an activated environment.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "ignore",
    }


@pytest.mark.slow
def test_a_fresh_process_predicts_as_the_live_model_did(store, tmp_path):
    """Arrays, lists, base64 text of two kinds and paths; all at once or one by one."""
    sent, expected = {}, {}
    for name in objective_names():
        images, model = images_of(name), fitted(name, 0)[0][-1].model
        paths = [str(tmp_path / f"{name}-{i}.png") for i in range(NUM)]
        for image, path in zip(images, paths, strict=True):
            Image.fromarray(image).save(path)
        kinds = {
            kind.lower(): [encoded(image, kind) for image in images] for kind in ("PNG", "JPEG")
        }
        sent[name] = {"paths": paths, **kinds}
        jpeg = [decode_image(base64.b64decode(text)) for text in kinds["jpeg"]]
        expected[name] = model.predict(images), model.predict(jpeg)
    (tmp_path / "sent.json").write_text(json.dumps(sent))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path / "sent.json")],
        env=environment(store), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == sent.keys()
    for name, answers in found.items():
        assert set(answers) == {"paths", "png", "jpeg", "arrays", "lists", "one by one", "none"}
        assert answers.pop("none") == []
        for kind, values in answers.items():
            wanted = expected[name][kind == "jpeg"]
            assert len(values) == NUM
            for value, live in zip(values, wanted, strict=True):
                np.testing.assert_allclose(value, live, atol=1e-5, err_msg=f"{name} {kind}")


@pytest.mark.slow
def test_parity_is_found_again_and_a_model_that_differs_is_not_logged(store, tmp_path):
    for name in objective_names():
        assert parity(store, f"models:/{name}/1").holds
    with pytest.MonkeyPatch.context() as patch:
        model = load_objective("leukemia.svm").model
        predict = model.predict
        patch.setattr(
            model, "predict", lambda self, images: [v[::-1] for v in predict(self, images)]
        )
        assert not parity(store, "models:/leukemia.svm/1").holds
        before = model_ids(store)
        other = tmp_path / "other"
        with pytest.raises(ModelError, match="must predict the same after it is loaded again"):
            logged_with_other_answers(store, "leukemia.svm", other)
        assert model_ids(store) == before


def model_ids(tracker):
    return {m.model_id for m in tracker._client.search_logged_models([tracker.experiment_id])}


def logged_with_other_answers(tracker, name, folder):
    """What `logged` does, of a model whose answers were noted before they turned round."""
    data = fold_of(load_objective(name).task.name).val
    answers = fitted(name, 0)[2][-1][:NUM_IMAGES]
    (folder / "weights").mkdir(parents=True)
    fitted(name, 0)[0][-1].model.save(folder / "weights")
    LivePredictions(answers, "cpu").save(folder / LIVE)
    run = tracker.start("trained", {})
    log_model(
        tracker, run.id, objective=name, weights=folder / "weights", live=folder / LIVE, data=data
    )


@pytest.mark.slow
def test_the_run_and_the_model_know_each_other(store, tmp_path):
    run_id, uri = logged(store, "leukemia.svm", tmp_path / "svm")
    data = fold_of("leukemia").val
    describe_model(store, uri, run_id, {"score": 0.5}, data)
    model = store._client.get_logged_model(uri.removeprefix("models:/"))
    assert (model.source_run_id, str(model.status)) == (run_id, "READY")
    (metric,) = model.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("score", 0.5, data.name)
    run = store._client.get_run(run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert run.data.metrics == {"score": 0.5}
    assert run.data.params == {}, "a run's parameters are those of its point"


@contextmanager
def serving(tracker, names, folder):
    """Real servers of registered models, side by side; their addresses and processes."""
    servers, addresses = [], {}
    for name in names:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
        place = ["--model-uri", f"models:/{name}/1", "--host", "127.0.0.1", "--port", str(port)]
        with open(folder / f"{name}.log", "w") as log:
            server = subprocess.Popen(
                [*command, *place], env=environment(tracker), cwd=folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        servers.append(server)
        addresses[name] = f"http://127.0.0.1:{port}", server
    try:
        yield addresses
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def answers(address, server, inputs):
    """What a server predicts, once it is there."""
    body, head = json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"}
    end = time.monotonic() + 240
    while server.poll() is None:
        try:
            request = urllib.request.Request(f"{address}/invocations", body, head)
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.load(reply)["predictions"]
        except ConnectionError:
            pass
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) or time.monotonic() > end:
                raise
        time.sleep(0.5)
    raise AssertionError(f"the server ended with {server.returncode}; see its log")


@pytest.mark.slow
def test_mlflow_serves_them(store, tmp_path):
    with serving(store, SERVED, tmp_path) as addresses:
        for name, place in addresses.items():
            images = images_of(name)
            wanted = fitted(name, 0)[0][-1].model.predict(images)
            for num in (1, NUM):
                found = answers(*place, [encoded(image, "PNG") for image in images[:num]])
                assert len(found) == num
                for value, live in zip(found, wanted, strict=False):
                    np.testing.assert_allclose(value, live, atol=1e-5, err_msg=name)
