"""The table by class: its rows, numbers and gaps."""

from explain.discs import Shifted, cell, dataset

from hemaml.explain import per_class
from hemaml.explain.predictions import predict_masks
from hemaml.ops.scores import segmentation_report


def rows(cells, shift):
    data = dataset(cells)
    masks = predict_masks(Shifted(data, [shift] * len(cells)), data).masks
    report = segmentation_report(masks, data.masks, classes=data.classes, background="background")
    return per_class.table_rows(data, report)


def test_a_perfect_model_has_perfect_scores_in_every_row():
    table = rows([cell(), cell()], 0)
    assert [row[0] for row in table] == ["cytoplasm", "nucleus", "foreground mean", "background"]
    assert all(row[1:] == ["1.0000"] * 5 + ["0.0"] for row in table)


def test_a_shift_is_the_hausdorff_distance():
    assert [row[-1] for row in rows([cell()], 3)][1] == "3.0"


def test_an_absent_class_is_a_dash():
    table = {row[0]: row[1:] for row in rows([cell(nucleus=0)], 0)}
    assert table["nucleus"] == ["–"] * 6
    assert table["foreground mean"][0] == "1.0000"


def test_class_names_and_ids_are_text_not_markup():
    data = dataset([cell()], classes=("background", "<i>cyto</i>", "$n_u$"))
    (picture,) = per_class.draw(Shifted(data, [1]), data)
    assert picture.png
    assert "<i>cyto" not in picture.html
