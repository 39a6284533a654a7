"""Where in an image a convolutional classifier sees its class: Grad-CAM++ maps, and their worth.

A row an image: the image, its heat map, the map over it, and the probability of each class. Of each
true class, the surest right answers and the surest wrong ones. A second page shows the same maps
while the network's weights are replaced by random ones.
"""

from hemaml.core.dataset import Dataset
from hemaml.core.types import Int64Array
from hemaml.explain import Picture
from hemaml.explain.contact_sheet import sample
from hemaml.explain.faithfulness import measured
from hemaml.explain.heat_maps import explained
from hemaml.explain.heat_sheet import Row, single_sheet
from hemaml.explain.outcome import Outcome
from hemaml.explain.sanity_sheet import sanity_sheet
from hemaml.tasks._classification import Explainable, predicted_probabilities

EACH = 2
"""Right and wrong images of each class, at most."""
SANITY = 6
"""Images on the page with random weights, at most."""


def draw(model: Explainable, data: Dataset) -> list[Picture]:
    """Maps of the surest right and wrong answers of each class, and of what random weights make.

    Args:
        model: A classifier with maps.
        data: Images with labels.

    Returns:
        Pictures `grad_cam` and `grad_cam_sanity`, as PNG.

    Raises:
        DataError: The data has no images, or no labels.
    """
    outcome = Outcome(data, predicted_probabilities(model, data))
    sections = []
    for label, name in enumerate(data.classes):
        shown = [*surest(outcome, label, right=True), *surest(outcome, label, right=False)]
        found = explained(model, [data.images[index] for index in shown])
        rows = [Row(data.ids[i], label, [f]) for i, f in zip(shown, found, strict=True)]
        sections.append((name, rows))
    below = f"{outcome.where}; of each class the surest right, then the surest wrong answers"
    title = "Grad-CAM++: where the network sees its class"
    return [
        Picture("grad_cam", single_sheet(title, below, data.classes, sections)),
        Picture("grad_cam_sanity", sanity_sheet(model, data, sample(data, num=SANITY))),
    ]


def measure(model: Explainable, data: Dataset, device: str = "cpu") -> dict[str, float]:
    """The numbers of `hemaml.explain.faithfulness`, as `explain/deletion` and so on.

    Args:
        model: A classifier with maps; its network goes to the device.
        data: Images with labels.
        device: Where they are computed.
    """
    return measured(model, data, device)


def surest(outcome: Outcome, label: int, *, right: bool) -> list[int]:
    """Indices of at most `EACH` right or wrong answers to images of a class, surest first."""
    top = outcome.probabilities.max(axis=1)
    correct = outcome.predicted == outcome.labels
    chosen: Int64Array = ((outcome.labels == label) & (correct == right)).nonzero()[0]
    return sorted(chosen.tolist(), key=lambda index: (-top[index], index))[:EACH]
