"""Any figure: found by name, drawn as pictures that open, without a network and cheap to import."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from explain.discs import Shifted, cell, dataset
from PIL import Image

from hemaml.core.errors import DataError, UnknownName
from hemaml.core.objective import load_objective, objective_names
from hemaml.explain import Picture, figure_names, grad_cam, measurements, pictures

OF_SEGMENTATION = ("overlay", "per_class")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_every_module_that_draws_is_a_figure():
    of_classifiers = ("classification", "grad_cam", "neighbourhood", "projection")
    assert figure_names() == tuple(sorted((*of_classifiers, *OF_SEGMENTATION, "embeddings")))


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_names_figures_that_exist(name):
    objective = load_objective(name)
    assert {*objective.task.figures, *objective.figures} <= {*figure_names()}


def test_an_unknown_name_lists_the_known_ones_and_draws_nothing(shifted):
    model, data = shifted(2)
    model.predict = None  # would raise
    with pytest.raises(UnknownName, match="unknown figure 'overlai'; known: overlay, "):
        pictures(["overlay", "overlai"], model, data)


def test_a_helper_is_no_figure(shifted):
    with pytest.raises(UnknownName, match="known: .*overlay"):
        pictures(["canvas"], *shifted(1))


def test_pictures_come_in_the_order_of_the_names(shifted):
    model, data = shifted(2)
    drawn = pictures(["per_class", "overlay"], model, data)
    assert [p.name for p in drawn] == ["per_class", "overlay"]
    assert all(isinstance(p, Picture) for p in drawn)
    assert pictures([], model, data) == []


def test_only_figures_that_measure_are_asked_for_numbers(shifted, monkeypatch):
    model, data = shifted(2)
    monkeypatch.setattr(
        grad_cam, "measure", lambda model, data, device: {f"explain/{device}": len(data)}
    )
    assert measurements(["overlay", "grad_cam"], model, data) == {"explain/cpu": 2}
    assert measurements(["overlay", "per_class"], model, data) == {}
    with pytest.raises(UnknownName, match="unknown figure 'grad_cm'; known: grad_cam, "):
        measurements(["grad_cm"], model, data)


@pytest.mark.parametrize("name", OF_SEGMENTATION)
@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([cell(), cell(30, 64), cell(90, 50)], id="sizes-differ"),
        pytest.param([cell(), cell(nucleus=0)], id="class-absent-in-one"),
        pytest.param([cell(nucleus=0)] * 2, id="class-absent-in-all"),
        pytest.param([cell(radius=0, nucleus=0)] * 2, id="only-background"),
        pytest.param([cell(radius=99)], id="cell-touches-every-border"),
        pytest.param([cell()] * 12, id="more-than-are-shown"),
    ],
)
def test_a_figure_opens_is_white_around_and_not_blank(name, cells):
    data = dataset(cells)
    for picture in pictures([name], Shifted(data, [2] * len(cells)), data):
        image = pixels(picture.png)
        border = [image[:10], image[-10:], image[:, :10], image[:, -10:]]
        assert all((side == 255).all() for side in border), "something is clipped"
        assert len(np.unique(image @ (65536, 256, 1))) > 20
        assert len(picture.png) < 1.5e6


@pytest.mark.parametrize("name", OF_SEGMENTATION)
def test_a_set_without_masks_or_images_is_an_error(name, shifted):
    model, data = shifted(2)
    for bad in (data.subset([]), dataset([cell()], masks=())):
        with pytest.raises(DataError, match="need images with masks, but 'cells'"):
            pictures([name], model, bad)


def test_html_needs_no_network(shifted):
    (picture,) = pictures(["per_class"], *shifted(3))
    assert not re.search(r"""<(script|link|img)[^>]*\b(src|href)=["']?(https?:)?//""", picture.html)
    assert "cell-02" in picture.html


def test_importing_is_cheap():
    modules = "overlay, per_class, contact_sheet, canvas, predictions"
    modules += ", classification, grad_cam, neighbourhood, projection"
    code = f"import sys; from hemaml.explain import {modules}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"matplotlib", "plotly", "skimage", "sklearn", "umap", "PIL"}
    slow |= {"torch", "pytorch_grad_cam", "cv2"}
    assert not slow & set(ran.stdout.split())
