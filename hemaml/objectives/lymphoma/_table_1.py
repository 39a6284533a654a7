"""What the networks for lymphoma share: the augmentation of the paper's Table 1.

Source: Ammar et al., Multi-model classification of malignant lymphoma subtypes (2025), section 2.1:
rotation of 10 degrees, shift of 10 %, shear of 10 degrees, scale .9 to 1.1, horizontal flip,
brightness .2 to 1.2, nearest pixels filled in; images of 224 x 224, normalised as ImageNet's.
"""

from typing import Self

from pydantic import Field, model_validator

from hemaml.data.augment_affine import Augmentation, Fill
from hemaml.objectives._fine_tuned import FineTuning


class Params(FineTuning):
    """What can be fixed or searched."""

    flip: bool = Field(default=True, description="Half of the images are mirrored.")
    rotation: float = Field(
        default=10, ge=0, le=180, description="Largest random rotation, in degrees."
    )
    shift: float = Field(
        default=0.1, ge=0, le=0.5, description="Largest random shift in x and y, as a share."
    )
    shear: float = Field(default=10, ge=0, le=45, description="Largest random shear, in degrees.")
    scale_low: float = Field(default=0.9, gt=0, le=4, description="Smallest random zoom.")
    scale_high: float = Field(default=1.1, gt=0, le=4, description="Largest random zoom.")
    brightness_low: float = Field(
        default=0.2, ge=0, le=4, description="Smallest random factor of the brightness."
    )
    brightness_high: float = Field(
        default=1.2, ge=0, le=4, description="Largest random factor of the brightness."
    )
    stain: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="Largest random change of each stain, in the space of scikit-image's rgb2hed.",
    )
    fill: Fill = Field(
        default="nearest", description="What comes in from outside: the edge repeated or mirrored."
    )

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("scale", "brightness"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low > high:
                raise ValueError(
                    f"`{name}_low <= {name}_high` must hold, but got {low} and {high}. Swap them."
                )
        return self

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each view of a batch."""
        return Augmentation(
            flip=self.flip,
            rotation=self.rotation,
            shift=self.shift,
            shear=self.shear,
            scale=(self.scale_low, self.scale_high),
            brightness=(self.brightness_low, self.brightness_high),
            stain=self.stain,
            fill=self.fill,
        )


NONE: dict[str, object] = {
    "flip": False, "rotation": 0, "shift": 0, "shear": 0, "scale_low": 1, "scale_high": 1,
    "brightness_low": 1, "brightness_high": 1,
}  # fmt: skip
"""No augmentation, so that what frozen blocks make of images is kept."""
