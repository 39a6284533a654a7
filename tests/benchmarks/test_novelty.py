"""How many images of other laboratories a classifier calls unlike what it was trained on.

`pytest tests/benchmarks/test_novelty.py -s` prints it for models of ALL_images, whose own held-out
part is beside the others. It needs the real data sets and `hemaml[efficientnet]`.
"""

import numpy as np
import pytest

import hemaml
from hemaml.core.experiment import load_experiment
from hemaml.core.settings import tracking_uri
from hemaml.serve.judging import told_novelty
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.opened_model import open_registered

MODELS = {
    "svm on classical features": "experiments/leukemia/svm.yaml",
    "resnet18_gcn on EfficientNet-Lite0": "experiments/leukemia/resnet18_gcn.yaml",
}
OTHERS = {
    "PBC, single cells": "experiments/leukemia/backbone.yaml",
    "C-NMC, single cells": "experiments/leukemia/svm_c_nmc.yaml",
    "segmentation_WBC, data set 1": "experiments/wbc_segmentation/smgnn.yaml",
    "segmentation_WBC, data set 2": "experiments/wbc_segmentation/smgnn_dataset2.yaml",
    "malignant_lymphoma, tissue": "experiments/lymphoma/resnet50.yaml",
}
MOST = 150
"""Images of each set, drawn evenly from it."""
BATCH = 25


def images_of(experiment, held_out=False):
    """Images of an experiment's data set: its held-out part, or of all of it."""
    plan = load_experiment(experiment)
    task = plan.objective.task
    data = task.read(plan.experiment.data)
    if held_out:
        _, data = task.held_out(data)
    chosen = np.unique(np.linspace(0, len(data.images) - 1, MOST).astype(int))
    return [np.asarray(data.images[int(i)]) for i in chosen]


def share_unlike(opened, images):
    """Per cent of images that the model says are unlike its training images."""
    unlike = []
    for start in range(0, len(images), BATCH):
        _, features = opened.model.predict_and_embed(images[start : start + BATCH])
        unlike += [told.unlike for told in told_novelty(opened.reference, features)]
    return 100 * float(np.mean(unlike))


@pytest.mark.parametrize("model", MODELS)
def test_novelty(model, workplace, real_data, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(real_data))
    run = hemaml.run(MODELS[model]).run_id
    assert hemaml.promote("leukemia-all_images-binary", run=run, force="a benchmark").passed
    opened = open_registered(
        MlflowTracker(tracking_uri(), "leukemia"), "models:/leukemia-all_images-binary@champion"
    )
    own = share_unlike(opened, images_of(MODELS[model], held_out=True))
    others = {name: share_unlike(opened, images_of(path)) for name, path in OTHERS.items()}
    print(f"\n{model}: unlike the training images")
    for name, share in {"ALL_images, held out": own, **others}.items():
        print(f"  {name:32} {share:5.1f} %")
    assert own < min(others.values())
