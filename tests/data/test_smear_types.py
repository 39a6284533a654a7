from collections import Counter

import numpy as np
import pytest

from hemaml.data.reading import read_dataset
from hemaml.data.smear_types import MONONUCLEAR

SMALL = {"reader": "smear_types", "patients": 4, "per_patient": 6, "size": 32}
BINARY = {**SMALL, "classes": "binary"}


def test_types_are_all_in_each_patient_and_patients_are_groups():
    dataset = read_dataset(SMALL)
    assert dataset.classes == ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    assert Counter(dataset.groups) == {f"patient-000{i}": 6 for i in range(4)}
    for first in range(0, 24, 6):
        assert set(dataset.labels[first : first + 6]) == set(range(5))
    assert "synthetic" in dataset.source
    assert len(set(dataset.ids)) == len(set(dataset.image_digests)) == 24


@pytest.mark.parametrize("per_patient", [1, 6, 9])
def test_binary_patients_have_cells_of_one_class(per_patient):
    dataset = read_dataset({**BINARY, "per_patient": per_patient})
    assert dataset.classes == ("granulocyte", "mononuclear")
    assert dataset.labels == tuple(i // per_patient % 2 for i in range(4 * per_patient))


def test_binary_labels_are_those_of_the_types():
    both = {**SMALL, "patients": 2, "per_patient": 20}
    of_type = {}
    for name in ("types", "binary"):
        data = read_dataset({**both, "classes": name, "per_patient": 20 if name == "types" else 8})
        of_type[name] = dict(zip(data.image_digests, data.labels, strict=True))
    shared = of_type["types"].keys() & of_type["binary"].keys()
    assert len(shared) == 8
    assert all((of_type["types"][d] in MONONUCLEAR) == of_type["binary"][d] for d in shared)


def test_the_seed_fixes_all_and_more_patients_extend():
    one, again = read_dataset(SMALL), read_dataset({**SMALL, "patients": 5})
    assert again.digests[:24] == one.digests
    assert not set(read_dataset({**SMALL, "seed": 1}).digests) & set(one.digests)


def test_patients_differ_in_stain_more_than_their_images_do():
    dataset = read_dataset({**SMALL, "patients": 8, "per_patient": 10, "noise": 0})
    light = np.array([np.percentile(image, 95, axis=(0, 1)) for image in dataset.images])
    by_patient = light.reshape(8, 10, 3)
    within, between = by_patient.std(axis=1).mean(), by_patient.mean(axis=1).std(axis=0).mean()
    assert between > 2 * within


def test_three_classes_are_granulocytes_and_the_two_others():
    data = read_dataset({**SMALL, "classes": "three"})
    types = read_dataset({**SMALL, "classes": "types"})
    assert data.classes == ("granulocyte", "lymphocyte", "monocyte")
    assert data.image_digests == types.image_digests
    expected = {"lymphocyte": 1, "monocyte": 2}
    assert data.labels == tuple(expected.get(types.classes[k], 0) for k in types.labels)


def test_masks_are_an_input_of_each_image():
    types = read_dataset(SMALL)
    assert not types.masks and len(types.drawn) == len(types)
    for image, mask in zip(types.images, types.drawn, strict=True):
        assert mask.shape == image.shape[:2] and set(np.unique(mask)) == {0, 1, 2}
