"""Heat maps of recorded models: those of the live model, written whole or not at all."""

import csv
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from explain.tissue import CLASSES, Tissue, network, tissue
from PIL import Image
from test_cli import call

import hemaml
from hemaml import explaining
from hemaml.core.errors import ConfigError, DataError, StoreError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.core.objective import load_objective
from hemaml.explain.heat_maps import explained
from hemaml.explaining import FIGURE, Opened, explain_images, has_maps, open_model

CELLS = {"reader": "smear_types", "patients": 8, "per_patient": 4, "classes": "binary", "size": 40}
START = {"weights": "none", "size": 64, "epochs": 1, "unfrozen_blocks": 1}


@pytest.fixture
def slides(tmp_path):
    """A folder with four images in two folders, one of them named as a class."""
    root = tmp_path / "slides"
    for index, name in enumerate(("FL/a.png", "FL/b.png", "other/a.png", "other/a.jpg")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tissue(index)[0]).save(path)
    (root / "notes.txt").write_text("no image")
    return root


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def models(monkeypatch):
    """Opens `whole` and `tiled` without a store."""
    known = {"whole": Tissue(network()), "tiled": Tissue(network(), tiles=2)}
    monkeypatch.setattr(explaining, "open_model", lambda uri: Opened(uri, known[uri]))
    return known


def test_sheet_overlays_and_table_are_written(models, slides, tmp_path):
    found = explain_images("whole", slides, output=tmp_path / "out")
    assert sorted(str(p.relative_to(found.folder)) for p in found.overlays) == [
        "overlays/FL/a.png", "overlays/FL/b.png",
        "overlays/other/a.jpg.png", "overlays/other/a.png.png",
    ]  # fmt: skip
    for path in found.overlays:
        assert pixels(path).shape == (72, 96, 3)
    assert pixels(found.sheet).std() > 5
    rows = list(csv.DictReader(found.table.read_text().splitlines()))
    assert [row["image"] for row in rows] == ["FL/a", "FL/b", "other/a.jpg", "other/a.png"]
    for row, path in zip(rows, sorted(slides.rglob("*.[pj]*g")), strict=True):
        (expected,) = models["whole"].predict([pixels(path)])
        shares = [float(row[f"p({name})"]) for name in CLASSES]
        np.testing.assert_allclose(shares, expected, atol=1e-5)
        assert row["class"] == CLASSES[expected.argmax()]


def test_models_are_compared_in_what_they_see_of_one_class(models, slides, tmp_path):
    maps = {}
    for name in CLASSES:
        found = explain_images("whole", slides / "FL", target=name, output=tmp_path / name)
        maps[name] = [path.read_bytes() for path in found.overlays]
        said = [
            models["whole"].predict([pixels(p)])[0].argmax() for p in sorted(slides.glob("FL/*"))
        ]
        assert [one.said for one in found.predictions] == [CLASSES[index] for index in said]
    first, second, third = maps.values()
    assert first != second != third != first
    with pytest.raises(UnknownName, match="unknown class 'FLL'; known: FL"):
        explain_images("whole", slides, target="FLL", output=tmp_path / "out")


def test_several_models_are_compared_on_the_same_images(models, slides, tmp_path):
    found = explain_images(["whole", "tiled"], slides / "FL", output=tmp_path / "out")
    assert [p.model for p in found.predictions] == ["whole", "tiled"] * 2
    assert len(found.overlays) == 4 == len({path.read_bytes() for path in found.overlays})
    single = explain_images("whole", slides / "FL", output=tmp_path / "single")
    assert pixels(found.sheet).shape != pixels(single.sheet).shape


def test_files_can_be_named_and_count_once(models, slides, tmp_path):
    files = [slides / "FL" / "b.png", slides / "FL"]
    found = explain_images("whole", files, output=tmp_path / "out")
    assert [p.image for p in found.predictions] == ["b", "a"]


@pytest.mark.parametrize("spoil", ["truncated", "no-picture"])
def test_a_bad_image_leaves_nothing_behind(models, slides, tmp_path, spoil):
    bad = slides / "other" / "z.png"
    whole = (slides / "FL" / "a.png").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if spoil == "truncated" else b"text")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"z\.png: must be a whole, readable picture"):
        explain_images("whole", slides, output=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_no_images_no_folder_and_a_folder_in_use_are_errors(models, slides, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"must be images \(.bmp, .*empty has none"):
        explain_images("whole", empty)
    with pytest.raises(DataError, match="there is no .*absent"):
        explain_images("whole", tmp_path / "absent")
    with pytest.raises(ConfigError, match="new or empty, but .*slides is neither"):
        explain_images("whole", slides, output=slides)
    assert explain_images("whole", slides, output=empty).folder == empty.resolve()


def test_an_unknown_method_is_told_before_anything_is_read(models, slides, tmp_path):
    with pytest.raises(UnknownName, match=r"'gradcam\+'; known: gradcam"):
        explain_images("whole", slides, method="gradcam+", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_other_classes_are_not_compared(models, slides):
    models["tiled"].classes = ("no", "yes")
    with pytest.raises(ConfigError, match="whole has CLL, FL, MCL and tiled has no, yes"):
        explain_images(["whole", "tiled"], slides)


@pytest.fixture
def recorded(workplace, monkeypatch):
    """Trains a point without pictures, and registers it; its live model, too."""
    monkeypatch.setattr(import_module("hemaml.run"), "log_model_pictures", lambda *_: None)
    live = []

    def recorded(name, params):
        objective = load_objective(name)

        def fit(*given):
            for step in objective.fit(*given):
                live.append(step.model)
                yield step

        maps = () if "svm" in name or has_maps(name) else (FIGURE,)
        figures = (*objective.figures, *maps)
        module = import_module(f"hemaml.objectives.{name}")
        monkeypatch.setattr(module, "objective", replace(objective, fit=fit, figures=figures))
        document = {
            "name": "mine", "objective": name, "question": "?", "data": CELLS,
            "split": {"val": 0.25}, "params": params, "register": "cells",
        }  # fmt: skip
        result = hemaml.run(plan_from(document, None))
        assert result.ending == "finished", result.reason
        return result, live[-1]

    return recorded


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leukemia.resnet18", "lymphoma.resnet50", "lymphoma.densenet121"])
def test_a_reloaded_model_gives_the_map_of_the_live_one(recorded, name):
    result, live = recorded(name, START)
    images = [tissue(seed)[0] for seed in range(3)]
    expected = list(explained(live, images))
    for uri in ("models:/cells@candidate", "models:/cells/1", result.run_id):
        for one, other in zip(explained(open_model(uri).model, images), expected, strict=True):
            assert other.heat.std() > 0.05, "a map to compare with"
            np.testing.assert_allclose(one.heat, other.heat, atol=1e-5)
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert {f"explain/{name}" for name in ("deletion", "insertion")} <= result.metrics.keys()


@pytest.mark.slow
def test_recorded_models_are_explained_by_name(recorded, slides, tmp_path):
    result, _ = recorded("leukemia.resnet18", START)
    output = tmp_path / "out"
    code, shown = call(
        "explain", "models:/cells/1", str(slides), "--with", result.run_id,
        "--method", "layercam", "--output", str(output),
    )  # fmt: skip
    assert code == 0 and f"sheet: {output}/sheet.png" in shown
    assert "cells/1" in shown and len(list(output.rglob("*.png"))) == 9
    with pytest.raises(UnknownName, match="unknown version of cells '7'; known: 1"):
        open_model("models:/cells/7")
    with pytest.raises(ConfigError, match="models:/name@alias or models:/name/version"):
        open_model("models:/cells")
    with pytest.raises(StoreError):
        open_model("0" * 32)


@pytest.mark.slow
def test_a_model_without_maps_is_told_which_have_some(recorded):
    recorded("leukemia.svm", {})
    with pytest.raises(ConfigError, match=r"models:/cells/1 is a model of leukemia\.svm\. Obj"):
        open_model("models:/cells/1")
    assert not Path("mlruns/explanations").exists()
