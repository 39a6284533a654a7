"""The residual network for small images: three stages of few channels, and hardly any parameters.

Source: He et al., Deep residual learning (2016), section 4.2: a convolution, three stages of
`blocks` pairs of convolutions with `width`, 2 `width` and 4 `width` channels, shortcuts without
parameters, and the mean over the map; `blocks: 3, width: 16` is their ResNet-20 of 0.27 million
parameters.

Shape suffixes: N batch; C channels; S side; K classes.
"""

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is strided and filled up with zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.added = after - before
        self.stride = stride
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x_NCSS: Tensor) -> Tensor:
        """N x `after` x S / stride x S / stride."""
        kept = x_NCSS[:, :, :: self.stride, :: self.stride]
        kept = functional.pad(kept, (0, 0, 0, 0, 0, self.added))
        summed: Tensor = self.body(x_NCSS) + kept
        return summed.relu()


class LightResnet(nn.Module):
    """See the module.

    Args:
        channels: Of the input.
        width: Channels of the first stage.
        blocks: Of each stage.
        num_classes: K.
        dropout: Share of features dropped in training.
    """

    def __init__(
        self, channels: int, width: int, blocks: int, num_classes: int, dropout: float = 0
    ) -> None:
        super().__init__()
        widths = [width, *(width * 2**stage for stage in range(3) for _ in range(blocks))]
        strided = {blocks + 1, 2 * blocks + 1}
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(
                Block(before, after, 2 if index in strided else 1)
                for index, (before, after) in enumerate(
                    zip(widths, widths[1:], strict=False), start=1
                )
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))

    def forward(self, x_NCSS: Tensor) -> Tensor:
        """Logits N x K."""
        logits: Tensor = self.head(self.features(x_NCSS))
        return logits
