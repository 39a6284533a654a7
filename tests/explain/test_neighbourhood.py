from dataclasses import replace

import numpy as np
import pytest
from explain.smears import Known, dataset

from hemaml.explain import neighbourhood
from hemaml.explain.neighbourhood import surest
from hemaml.explain.outcome import Outcome

LABELS = [0, 0, 0, 0, 0, 0, 1, 1]
LEUKEMIA = [0.1, 0.2, 0.3, 0.05, 0.15, 0.9, 0.6, 0.2]


@pytest.fixture
def outcome():
    values = np.array(LEUKEMIA, np.float32)
    return Outcome(dataset(LABELS), np.stack([1 - values, values], axis=1))


def test_true_classes_take_turns_from_the_surest_on(outcome):
    assert surest(outcome, right=True) == [3, 6, 0, 4]
    assert surest(outcome, right=False) == [5, 7]


@pytest.mark.parametrize("thumbnails", [False, True])
def test_a_row_has_the_image_and_its_neighbours_by_weight(outcome, thumbnails, monkeypatch):
    pages = []
    monkeypatch.setattr(neighbourhood, "to_png", lambda page: pages.append(page) or b"")
    model = Known(outcome.data, outcome.probabilities)
    if thumbnails:
        plain, small = model.neighbourhood, np.zeros((3, 8, 8, 3), np.uint8)
        model.neighbourhood = lambda image: replace(plain(image), thumbnails=tuple(small))
    neighbourhood.draw(model, outcome.data)
    (page,) = pages
    assert len(page.axes) == 6 * (1 + 3 * 2)  # an image; three neighbours with a bar each
    assert len(page.axes[1].images) == thumbnails
    widths = [axes.patches[0].get_width() for axes in page.axes[2:7:2]]
    assert widths == [0.9, 0.5, 0.2]
    texts = [text.get_text() for text in page.texts]
    assert texts.count("0.950") == 6
    assert "1 of 3 neighbours\nare of its class" in texts


def test_a_model_without_errors_has_no_wrong_row(outcome, monkeypatch):
    pages = []
    monkeypatch.setattr(neighbourhood, "to_png", lambda page: pages.append(page) or b"")
    right = replace(outcome, probabilities=np.eye(2, dtype=np.float32)[LABELS])
    neighbourhood.draw(Known(right.data, right.probabilities), right.data)
    assert "none" in [text.get_text() for text in pages[0].texts]
