"""DenseNet-121 on sections of lymph nodes, from ImageNet's or KimiaNet's weights.

Source: Ammar et al., Multi-model classification of malignant lymphoma subtypes (2025), section
2.2.2: the classifier and `denseblock4` are trained. It leaves open the optimiser, the learning rate
and the number of epochs.
"""

from pydantic import Field

from hemaml.nn.backbones import Backbone
from hemaml.objectives._fine_tuning import fine_tuning
from hemaml.objectives.lymphoma import _table_1
from hemaml.tasks import lymphoma

NUM_CLASSES = 3


class Params(_table_1.Params):
    """What can be fixed or searched."""

    backbone: Backbone = Field(default="densenet121", description="The network below the head.")


objective = fine_tuning(
    lymphoma.task,
    Params,
    num_classes=NUM_CLASSES,
    examples=(
        {"weights": "none", "size": 32, "epochs": 2, "batch_size": 4, "label_smoothing": 0.1},
    ),
)
