"""A backbone trained on all types of blood cells, to start other models of cells from.

It is `leukemia.resnet18` with every block unfrozen and nothing to start from; the folder that its
model is saved to, or its registered name, is what `weights:` of the other objectives takes, and the
head for the cell types is then dropped.

Source: transfer from PBC (Acevedo et al. 2020) takes the place of the paper's ImageNet weights.
"""

from pydantic import Field

from hemaml.nn.backbones import NUM_STAGES
from hemaml.objectives._fine_tuning import fine_tuning
from hemaml.objectives.leukemia import resnet18
from hemaml.tasks import leukemia


class Params(resnet18.Params):
    """Those of `leukemia.resnet18` with other defaults."""

    weights: str = Field(
        default="none",
        description="none, imagenet, kimianet (DenseNet-121), models:/name@alias, runs:/id, an "
        "address with #sha256=, or the path of a file or saved model.",
    )
    unfrozen_blocks: int = Field(
        default=NUM_STAGES,
        ge=0,
        le=NUM_STAGES,
        description="Blocks that are trained, from the head down: 1 is the last, 5 is all.",
    )
    lr_backbone: float = Field(
        default=1, gt=0, le=10, description="Rate of the unfrozen blocks, as a multiple of lr."
    )
    rotation: float = Field(
        default=180, ge=0, le=180, description="Largest random rotation, in degrees."
    )


objective = fine_tuning(
    leukemia.task,
    Params,
    num_classes=len(resnet18.BINARY),
    examples=({"size": 32, "epochs": 2, "batch_size": 4},),
)
