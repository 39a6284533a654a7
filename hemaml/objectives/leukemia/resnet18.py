"""ResNet-18 on images of cells, from ImageNet or other weights, as far unfrozen as asked for.

Images are scaled to a square and mirrored, rotated and varied in colour while it trains. Where
nothing augments them, what the frozen blocks make of them is computed once and kept.

Source: Kapadia and Swarnalatha, hybrid CNN and GNN, sections III.C and IV. They leave open how far
the network is fine-tuned, the strength of the colour jitter and the number of epochs.
"""

from pydantic import Field

from hemaml.data.augment_affine import Augmentation
from hemaml.objectives._fine_tuned import FineTuning
from hemaml.objectives._fine_tuning import fine_tuning
from hemaml.tasks import leukemia

BINARY = ("healthy", "leukemia")


class Params(FineTuning):
    """What can be fixed or searched."""

    size: int = Field(default=128, ge=32, le=1024, description="Side of the images in pixels.")
    flip: bool = Field(default=True, description="Half of the images are mirrored.")
    rotation: float = Field(
        default=10, ge=0, le=180, description="Largest random rotation, in degrees."
    )
    jitter: float = Field(
        default=0.2, ge=0, lt=1, description="Largest random change of brightness and contrast."
    )

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each view of a batch."""
        return Augmentation(
            flip=self.flip,
            rotation=self.rotation,
            brightness=(1 - self.jitter, 1 + self.jitter),
            contrast=self.jitter,
        )


objective = fine_tuning(
    leukemia.task,
    Params,
    num_classes=len(BINARY),
    examples=(
        {"weights": "none", "size": 32, "epochs": 2, "batch_size": 4, "dropout": 0.2},
        {
            "weights": "none",
            "size": 32,
            "epochs": 2,
            "batch_size": 8,
            "unfrozen_blocks": 0,
            "hidden": 8,
            "tiles": 2,
            "tile_choice": "grid",
            "flip": False,
            "rotation": 0,
            "jitter": 0,
            "patience": 1,
            "schedule": "constant",
        },
    ),
)
