"""ResNet-50 on sections of lymph nodes, from ImageNet or other weights, its last block unfrozen.

Source: Ammar et al., Multi-model classification of malignant lymphoma subtypes (2025), section
2.2.1: the classifier and `layer4` are trained. It leaves open the optimiser, the learning rate and
the number of epochs.
"""

from pydantic import Field

from hemaml.nn.backbones import Backbone
from hemaml.objectives._fine_tuning import fine_tuning
from hemaml.objectives.lymphoma import _table_1
from hemaml.tasks import lymphoma

NUM_CLASSES = 3


class Params(_table_1.Params):
    """What can be fixed or searched."""

    backbone: Backbone = Field(default="resnet50", description="The network below the head.")


objective = fine_tuning(
    lymphoma.task,
    Params,
    num_classes=NUM_CLASSES,
    examples=(
        {"backbone": "resnet18", "weights": "none", "size": 32, "epochs": 2, "batch_size": 4},
        {
            "backbone": "resnet18",
            "weights": "none",
            "size": 32,
            "epochs": 2,
            "batch_size": 4,
            "tiles": 2,
            "stain": 0.05,
            "precision": "bfloat16",
        },
        {"weights": "none", "size": 32, "epochs": 1, "batch_size": 4, **_table_1.NONE},
    ),
)
