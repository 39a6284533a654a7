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
from hemaml.core import settings
from hemaml.core.errors import ConfigError, DataError, Forbidden, StoreError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.core.objective import load_objective
from hemaml.data.tiles import grid_places
from hemaml.explain.heat_maps import explained
from hemaml.explaining import FIGURE, Opened, explain_images, has_maps, image_files, open_model
from hemaml.tracking.mlflow_tracker import MlflowTracker

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


def test_what_is_hidden_and_what_is_no_file_is_no_image(slides):
    """A Mac leaves `._a.png` beside each file that it copies."""
    listed = image_files([slides])
    assert [path.name for path in listed] == ["a.png", "b.png", "a.jpg", "a.png"]
    (slides / "FL" / "._a.png").write_bytes(b"Mac OS X")
    (slides / "FL" / ".b.png").write_bytes((slides / "FL" / "b.png").read_bytes())
    (slides / ".Trashes").mkdir()
    (slides / ".Trashes" / "a.png").write_bytes((slides / "FL" / "b.png").read_bytes())
    (slides / "FL" / "d.png").mkdir()
    assert image_files([slides]) == listed
    assert image_files([slides / "FL" / "b.png", slides / "FL"]) == [listed[1], listed[0]]
    (slides / "FL" / "d.png" / "e.png").write_bytes((slides / "FL" / "b.png").read_bytes())
    assert slides / "FL" / "d.png" / "e.png" in image_files([slides])


def test_a_folder_that_cannot_be_read_is_an_error_of_the_data(slides):
    (slides / "round").symlink_to(slides, target_is_directory=True)
    with pytest.raises(DataError, match="folders of images must be readable, but .*slides gave"):
        image_files([slides])


def test_an_image_too_small_for_tiles_is_named(models, slides, tmp_path):
    def views(image):
        grid_places(*image.shape[:2], 2, 40)
        return Tissue.views(models["tiled"], image)

    models["tiled"].views = views
    small = slides / "other" / "small.png"
    Image.fromarray(tissue(height=30, width=50)[0]).save(small)
    with pytest.raises(DataError, match=rf"^{small}: tiles of 40 pixels need .* one is 30 x 50"):
        explain_images(["whole", "tiled"], slides, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Kept:
    """A run that keeps what is logged, or refuses it."""

    def __init__(self, run_id, refusal=None):
        self.id, self.refusal, self.files = run_id, refusal, []

    def log_bytes(self, content, path):
        if self.refusal is not None:
            raise self.refusal
        self.files.append((path, content))


def opening(models, monkeypatch, **runs):
    monkeypatch.setattr(explaining, "open_model", lambda uri: Opened(uri, models[uri], runs[uri]))


def test_sheet_and_table_are_copied_to_the_run_of_each_model(models, slides, tmp_path, monkeypatch):
    whole, tiled = Kept("1"), Kept("2")
    opening(models, monkeypatch, whole=whole, tiled=tiled)
    found = explain_images(["whole", "tiled"], slides, output=tmp_path / "out")
    for run in (whole, tiled):
        (sheet, shown), (table, rows) = run.files
        stamp = sheet.split("/")[1]
        assert sheet == f"explanations/{stamp}/sheet.png" and shown == found.sheet.read_bytes()
        assert table == f"explanations/{stamp}/predictions.csv"
        assert rows == found.table.read_bytes()


def test_two_names_of_one_run_get_one_copy(models, slides, tmp_path, monkeypatch):
    first, second = Kept("1"), Kept("1")
    opening(models, monkeypatch, whole=first, tiled=second)
    explain_images(["whole", "tiled"], slides, output=tmp_path / "out")
    assert len(first.files + second.files) == 2


@pytest.mark.parametrize("refusal", [Forbidden("refused this to 'rita'"), StoreError("read-only")])
def test_a_run_that_takes_no_copy_is_named_and_the_folder_is_the_result(
    models, slides, tmp_path, monkeypatch, caplog, refusal
):
    other = Kept("2")
    opening(models, monkeypatch, whole=Kept("1", refusal), tiled=other)
    found = explain_images(["whole", "tiled"], slides, output=tmp_path / "out")
    assert found.sheet.is_file() and len(other.files) == 2
    (line,) = caplog.messages
    assert line == f"run 1 has no copy of {found.folder}: {refusal}"


def test_nothing_is_copied_of_what_fails(models, slides, tmp_path, monkeypatch):
    run = Kept("1")
    opening(models, monkeypatch, whole=run)
    (slides / "z.png").write_bytes(b"text")
    with pytest.raises(DataError, match="z.png"):
        explain_images("whole", slides, output=tmp_path / "out")
    assert run.files == []


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
    names = ("models:/cells@candidate", "models:/cells/1", result.run_id, f"runs:/{result.run_id}")
    for uri in names:
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
    kept = MlflowTracker(settings.tracking_uri(), "leukemia")
    (stamp,) = kept.download(result.run_id, "explanations", tmp_path).iterdir()
    assert sorted(path.name for path in stamp.iterdir()) == ["predictions.csv", "sheet.png"]
    assert (stamp / "sheet.png").read_bytes() == (output / "sheet.png").read_bytes()
    assert open_model(f"runs:/{result.run_id}").run.id == result.run_id
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
