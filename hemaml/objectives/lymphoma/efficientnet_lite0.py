"""EfficientNet-Lite0 on sections of lymph nodes: ImageNet's weights that a package registry has.

Not in the paper. Source: Tan and Le, EfficientNet (2019); the Lite variant leaves out what runs
badly on small devices.
"""

from pydantic import Field

from hemaml.nn.backbones import Backbone
from hemaml.objectives._fine_tuning import fine_tuning
from hemaml.objectives.lymphoma import _table_1
from hemaml.tasks import lymphoma

NUM_CLASSES = 3


class Params(_table_1.Params):
    """What can be fixed or searched."""

    backbone: Backbone = Field(
        default="efficientnet_lite0", description="The network below the head."
    )


objective = fine_tuning(
    lymphoma.task,
    Params,
    num_classes=NUM_CLASSES,
    examples=({"weights": "none", "size": 32, "epochs": 2, "batch_size": 4, "tiles": 2},),
)
