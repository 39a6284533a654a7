"""A data set at a glance: what is sampled, drawn and said."""

import io
from collections import Counter

import numpy as np
import pytest
from explain.discs import cell, dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hemaml.core.errors import DataError
from hemaml.explain import contact_sheet as module
from hemaml.explain.contact_sheet import contact_sheet, facts, sample


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 30))
def test_labels_share_the_places_evenly(labels, num):
    data = dataset([cell(8, 8)] * len(labels), labels=tuple(labels))
    chosen = sample(data, num=num)
    assert len(chosen) == len(set(chosen)) == min(num, len(labels))
    shown, there = Counter(labels[i] for i in chosen), Counter(labels)
    short = [shown[label] for label in there if shown[label] < there[label]]
    assert max(shown.values()) - min(short, default=max(shown.values())) <= 1
    assert [labels[i] for i in chosen] == sorted(labels[i] for i in chosen)


def test_images_without_labels_are_evenly_spaced():
    data = dataset([cell(8, 8)] * 10)
    assert sample(data, num=4) == [0, 3, 6, 9]


@pytest.mark.parametrize("num_images", [1, 5, 6, 7, 30])
def test_the_sheet_has_a_panel_an_image(num_images, monkeypatch):
    pages = []
    monkeypatch.setattr(module, "to_png", lambda page: pages.append(page) or b"")
    data = dataset([cell(), cell(20, 50)] * num_images).subset(range(num_images))
    contact_sheet(data)
    assert len(pages[0].axes) == min(num_images, 24)
    assert "cell-00" in [text.get_text() for text in pages[0].texts]


@pytest.mark.parametrize("masks", [True, False])
def test_a_sheet_opens_and_nothing_is_clipped(masks):
    options = {} if masks else {"masks": (), "labels": (1, 2) * 4}
    png = contact_sheet(dataset([cell(), cell(20, 50)] * 4, **options))
    image = np.asarray(Image.open(io.BytesIO(png)))
    assert (image[:, -10:] == 255).all()
    assert (image[-10:] == 255).all()
    assert image.std() > 5


def test_labels_of_a_classification_set_are_its_classes(monkeypatch):
    pages = []
    monkeypatch.setattr(module, "to_png", lambda page: pages.append(page) or b"")
    contact_sheet(dataset([cell()] * 2, masks=(), labels=(1, 2)))
    assert {"cytoplasm", "nucleus"} <= {text.get_text() for text in pages[0].texts}


def test_an_empty_set_has_facts_but_no_sheet():
    empty = dataset([cell()]).subset([])
    assert facts(empty)["images"] == "0"
    with pytest.raises(DataError, match="needs an image, but 'cells' has none"):
        contact_sheet(empty)


def test_facts():
    half = np.repeat(np.array([[0, 1]], dtype=np.uint8), 5, axis=1)
    cells = [(np.zeros((1, 10, 3), dtype=np.uint8), half), (np.zeros((2, 10, 3), np.uint8), half)]
    data = dataset(cells, labels=(0, 3), groups=("a", "a"), source="here")
    assert facts(data) == {
        "name": "cells",
        "images": "2",
        "size": "1 to 2 pixels high, 10 wide",
        "classes": "background, cytoplasm, nucleus",
        "pixels": "background 50.0%, cytoplasm 50.0%, nucleus 0.0%",
        "labels": "label 0: 1, label 3: 1",
        "groups": "1",
        "digest": data.digest,
        "source": "here",
    }
