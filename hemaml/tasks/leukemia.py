"""Classification of leukemia from images of cells: healthy or leukemic, or by type of smear.

A binary set has the classes `healthy` (0) and `leukemia` (1), the positive one; a set with more
classes is scored by means over them. The scores are defined at the top of
`hemaml.ops.classification_scores`; the one that decides is `auc`. The models of this task are
`hemaml.tasks._classification.Classifier`s.
"""

from hemaml.tasks._classification import (
    Attaching,
    Classifier,
    Neighbourhood,
    classification_task,
    intervals,
    predicted_probabilities,
    score,
)

__all__ = [
    "Attaching",
    "Classifier",
    "Neighbourhood",
    "intervals",
    "predicted_probabilities",
    "score",
    "task",
]

task = classification_task("leukemia", usual_data="c_nmc")
