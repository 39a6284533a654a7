"""Heat maps of any images by recorded models: sheet, overlays and a table of predictions."""

import csv
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from PIL import Image

from hemaml.core import settings
from hemaml.core.errors import ConfigError, DataError, StoreError, UnknownName
from hemaml.core.objective import load_objective, objective_names
from hemaml.core.staging import staging
from hemaml.core.tracker import REGISTERED, RUN, Run, is_registered
from hemaml.data.decode import decode_image
from hemaml.data.labelled_images import SUFFIXES, Listing, list_images
from hemaml.explain.heat_maps import LAYER, USUAL, check_names, explained
from hemaml.explain.heat_sheet import Row, comparison_sheet, overlay, single_sheet, small
from hemaml.record import trackers
from hemaml.tasks._classification import Explainable
from hemaml.tracking.mlflow_tracker import WEIGHTS
from hemaml.tracking.registry import Registry

logger = logging.getLogger(__name__)

FIGURE = "grad_cam"
"""Of the objectives whose models can be explained; they name it."""
ON_THE_SHEET = 24
"""Images at most, evenly spaced; overlays and table have all."""
SHEET, TABLE, OVERLAYS = "sheet.png", "predictions.csv", "overlays"
FOLDER = "explanations"
"""Below the store's folder, and of the artifacts of a run."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A recorded model that gives heat maps.

    Attributes:
        name: What sheets call it.
        model: Loaded onto the CPU.
        run: That logged it; None where there is none.
    """

    name: str
    model: Explainable
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of an image.

    Attributes:
        image: Its path below the folder that all images share.
        model: Name of the model.
        said: The most probable class.
        probabilities: Of all classes, in the model's order.
    """

    image: str
    model: str
    said: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Explanations:
    """What was written.

    Attributes:
        folder: With all of it.
        sheet: The images with their maps, or the maps of several models side by side.
        table: Predictions as CSV.
        overlays: An image each, in order; of several models, a folder each.
        classes: Of the models.
        predictions: The rows of the table.
    """

    folder: Path
    sheet: Path
    table: Path
    overlays: Sequence[Path]
    classes: tuple[str, ...]
    predictions: Sequence[Prediction]


def explain_images(
    models: str | Sequence[str],
    images: str | Path | Sequence[str | Path],
    *,
    method: str = USUAL,
    layer: str = LAYER,
    target: str | None = None,
    output: str | Path | None = None,
) -> Explanations:
    """Writes heat maps of images by recorded models; all of it, or nothing.

    An image that lies in a folder named as a class is shown with that as its truth. Sheet and table
    are then copied to the runs of the models, below `explanations/`, as far as this user may write
    there; a run that does not take them is named in a warning.

    Args:
        models: Each `models:/name@alias`, `models:/name/version`, `runs:/id` or the id alone of a
            run that has a model: of `hemaml run`, of a sweep or of one of its confirmations.
            Several, of the same classes, are compared on one sheet.
        images: Files, or folders with images at any depth; hidden ones do not count.
        method: A name in `hemaml.explain.heat_maps.METHODS`.
        layer: Name of the mapped stage.
        target: The class that is mapped; default: what each model says of each image.
        output: A folder that does not exist yet, or is empty; default: one in
            `mlruns/explanations/`.

    Raises:
        UnknownName: No such method, stage, class or registered model.
        ConfigError: A model has no heat maps, or models differ in their classes.
        DataError: No images, or one that does not decode or is too small for a model's tiles.
        StoreError: No such run, or the disk cannot be written.
    """
    uris = [models] if isinstance(models, str) else list(models)
    files = image_files([images] if isinstance(images, str | Path) else images)
    opened = [open_model(uri) for uri in uris]
    for one in opened:
        check_names(one.model.network, method, layer)
    _check_classes(opened)
    classes = opened[0].model.classes
    if target is not None and target not in classes:
        raise UnknownName("class", target, classes)
    mapped = None if target is None else classes.index(target)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = Path(output) if output else _usual_folder(opened[0].name, stamp)
    place = place.expanduser().resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(
            f"explanations go to a folder that is new or empty, but {place} is neither. "
            "Name another with --output."
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with staging(place) as folder:
            found = _write(folder, opened, files, method, layer, mapped)
            os.replace(folder, place)
    except OSError as error:
        raise StoreError(
            f"explanations need a folder that can be written, but {place} gave: {error}. "
            "Name another with --output."
        ) from error
    written = replace(
        found,
        folder=place,
        sheet=place / SHEET,
        table=place / TABLE,
        overlays=[place / path for path in found.overlays],
    )
    _log(written, opened, f"{FOLDER}/{stamp}")
    return written


def open_model(uri: str) -> Opened:
    """A registered model, or that of a run.

    Args:
        uri: `models:/name@alias`, `models:/name/version`, `runs:/id` or the id alone.

    Raises:
        UnknownName: No such registered model or version.
        ConfigError: The run has no model, or its kind has no heat maps.
        StoreError: No such run or alias.
    """
    tracker = trackers()[0]
    if is_registered(uri):
        fixed = tracker.fixed_version(uri)
        version = Registry(tracker.uri).by_uri(fixed)
        model = _loaded(version.tags["objective"], tracker.model_weights(fixed), uri)
        run = tracker.amend(version.run_id) if version.run_id else None
        return Opened(uri.removeprefix(REGISTERED), model, run)
    record = tracker.get(uri.removeprefix(RUN))
    source = record.tags.get("model_run") or record.tags.get("reused_from") or record.id
    if not tracker.has_artifact(source, WEIGHTS):
        raise ConfigError(
            f"heat maps need a run that kept its model, but {record.name} ({uri}) did not. Name a "
            "run of `hemaml run`, a finished sweep's, or one of its confirmations."
        )
    with TemporaryDirectory() as folder:
        weights = tracker.download(source, WEIGHTS, Path(folder))
        model = _loaded(record.tags["objective"], weights, uri)
    return Opened(record.name, model, tracker.amend(record.id))


def _loaded(name: str, weights: Path, uri: str) -> Explainable:
    objective = load_objective(name)
    if not has_maps(name):
        able = ", ".join(other for other in objective_names() if has_maps(other)) or "none"
        raise ConfigError(
            f"heat maps need a convolutional classifier, but {uri} is a model of {name}. "
            f"Objectives with maps: {able}."
        )
    return cast(Explainable, objective.model.load(weights))


def has_maps(objective: str) -> bool:
    """Whether the models of an objective are `Explainable`."""
    found = load_objective(objective)
    return FIGURE in found.task.figures + found.figures


def image_files(places: Sequence[str | Path]) -> list[Path]:
    """Files as they are named, and the images in folders at any depth, sorted.

    Folders are read as data sets are, without what is hidden; what else lies in them does not
    count.

    Raises:
        DataError: A place does not exist or cannot be read, or there are no images.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"images must exist, but there is no {place}. Check the path.")
        files += _images_in(place) if place.is_dir() else [place]
    if not files:
        told = ", ".join(str(place) for place in places) or "nothing"
        raise DataError(
            f"there must be images ({', '.join(SUFFIXES)}), but {told} has none. "
            "Name files, or a folder that has some."
        )
    return list(dict.fromkeys(path.resolve() for path in files))


def _images_in(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in list_images(Listing(folder), ".", nested=True)]
    except OSError as error:
        raise DataError(
            f"folders of images must be readable, but {folder} gave: {error}. "
            "Correct its rights, or name the images."
        ) from error


def _check_classes(opened: Sequence[Opened]) -> None:
    first = opened[0]
    for other in opened[1:]:
        if other.model.classes != first.model.classes:
            raise ConfigError(
                "models are compared on the same classes, but "
                f"{first.name} has {', '.join(first.model.classes)} and "
                f"{other.name} has {', '.join(other.model.classes)}."
            )


def _usual_folder(model: str, stamp: str) -> Path:
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in model)
    return settings.store_root() / FOLDER / f"{slug}-{stamp}"


def _log(written: Explanations, opened: Sequence[Opened], folder: str) -> None:
    """Copies sheet and table below `folder` of each model's run, once a run.

    What is on the disk is the result, so a store that takes no copy is no fault.
    """
    runs = {one.run.id: one.run for one in opened if one.run is not None}
    for run in runs.values():
        try:
            for file in (written.sheet, written.table):
                run.log_bytes(file.read_bytes(), f"{folder}/{file.name}")
        except StoreError as error:
            logger.warning("run %s has no copy of %s: %s", run.id, written.folder, error)


def _write(
    folder: Path,
    opened: Sequence[Opened],
    files: Sequence[Path],
    method: str,
    layer: str,
    target: int | None,
) -> Explanations:
    """All files, below `folder`; an image is decoded once and forgotten."""
    names, classes = _names(files), opened[0].model.classes
    shown = {int(i) for i in np.linspace(0, len(files) - 1, min(len(files), ON_THE_SHEET))}
    rows, predictions, overlays = [], [], []
    for index, (file, name) in enumerate(zip(files, names, strict=True)):
        image = decode_image(file)
        try:
            found = [
                next(explained(o.model, [image], method=method, layer=layer, target=target))
                for o in opened
            ]
        except DataError as error:  # of tiles, which know no name
            raise DataError(f"{file}: {error}") from error
        for number, (one, what) in enumerate(zip(opened, found, strict=True), start=1):
            inside = f"{number}/" if len(opened) > 1 else ""
            path = folder / OVERLAYS / f"{inside}{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(overlay(what)).save(path)
            overlays.append(path.relative_to(folder))
            shares = tuple(map(float, what.probabilities))
            predictions.append(Prediction(name, one.name, classes[what.said], shares))
        if index in shown:
            truth = file.parent.name
            label = classes.index(truth) if truth in classes else None
            rows.append(Row(name, label, [small(what) for what in found]))
    (folder / SHEET).write_bytes(_sheet(opened, rows, len(files), method, layer))
    (folder / TABLE).write_text(_csv(classes, predictions), encoding="utf-8")
    return Explanations(folder, folder / SHEET, folder / TABLE, overlays, classes, predictions)


def _names(files: Sequence[Path]) -> list[str]:
    """Paths below the folder that all share; without suffixes where they differ without."""
    common = os.path.commonpath([file.parent for file in files])
    full = [file.relative_to(common) for file in files]
    bare = [str(path.with_suffix("")) for path in full]
    counts = Counter(bare)
    return [str(path) if counts[name] > 1 else name for path, name in zip(full, bare, strict=True)]


def _sheet(
    opened: Sequence[Opened], rows: Sequence[Row], num: int, method: str, layer: str
) -> bytes:
    classes, names = opened[0].model.classes, [one.name for one in opened]
    which = f"{num} images" if len(rows) == num else f"{len(rows)} of {num} images"
    below = f"{which}; {method} of {layer}"
    if len(opened) > 1:
        return comparison_sheet("The same images by several models", below, classes, names, rows)
    return single_sheet(f"Heat maps by {names[0]}", below, classes, [("", rows)])


def _csv(classes: Sequence[str], predictions: Sequence[Prediction]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "model", "class", *(f"p({name})" for name in classes)])
    for one in predictions:
        shares = [f"{share:.6f}" for share in one.probabilities]
        writer.writerow([one.image, one.model, one.said, *shares])
    return file.getvalue()
