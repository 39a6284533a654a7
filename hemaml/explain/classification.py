"""All figures of a classifier that need its predictions alone, which are made once."""

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Predictor
from hemaml.explain import Picture, confusion, reliability, roc, score_table
from hemaml.explain.outcome import Outcome
from hemaml.tasks.leukemia import predicted_probabilities


def draw(model: Predictor, data: Dataset) -> list[Picture]:
    """Table of scores, confusion matrix, ROC and reliability curve.

    Args:
        model: A classifier.
        data: Images with labels.

    Returns:
        Pictures `scores`, `confusion`, `roc` and `reliability`; PNG, and HTML that needs no
        network.

    Raises:
        DataError: The data has no images, or no labels.
    """
    outcome = Outcome(data, predicted_probabilities(model, data))
    figures = (score_table, confusion, roc, reliability)
    return [figure.picture(outcome) for figure in figures]


def draw_confusion(model: Predictor, data: Dataset) -> Picture:
    """The confusion matrix alone, as `draw` has it."""
    return confusion.picture(Outcome(data, predicted_probabilities(model, data)))
