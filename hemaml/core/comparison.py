"""What is known of the difference between two models on the same images."""

from dataclasses import dataclass
from math import isnan

ALPHA = 0.05
"""A difference is above noise where p is smaller."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the champion on the same images, by one metric; NaN where undefined.

    Attributes:
        difference: The candidate's metric minus the champion's.
        low: Lower end of the 95 % interval of the difference, by paired bootstrap over groups
            (over images where there are none).
        high: Upper end of that interval.
        p: Two-sided p value of `test`: how often models that are alike differ at least so much.
        test: The test in words.
        effect: Size of the difference whatever the number of images; its sign is that of what the
            test looks at, and 0 is none.
        effect_name: The effect in words.
        num_images: Images that both models are compared on.
        num_groups: Groups (patients, cases or slides) of these images; as many as images where
            the data names none.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str
    effect: float
    effect_name: str
    num_images: int
    num_groups: int

    @property
    def within_noise(self) -> bool:
        """Whether the models may be alike: p is at least .05, or any figure is undefined."""
        figures = (self.difference, self.low, self.high, self.p, self.effect)
        return any(map(isnan, figures)) or self.p >= ALPHA
