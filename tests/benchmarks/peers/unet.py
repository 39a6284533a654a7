"""A U-Net of 5.43 million parameters, the first row of the SMGNN paper's tables; a peer for timing.

Source: Ronneberger et al., "U-Net", MICCAI 2015: double convolutions, four halvings, transposed
convolutions upwards; with batch normalisation, padding of one pixel, and widths chosen to meet
the paper's number of parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

WIDTHS = (27, 54, 107, 214, 428)


def double(num_in: int, num_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (num_in, num_out):
        layers += [
            nn.Conv2d(channels, num_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *WIDTHS), WIDTHS, strict=False))
        pairs = list(zip(WIDTHS[1:], WIDTHS, strict=False))[::-1]
        self.widen = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(double(2 * b, b) for _, b in pairs)
        self.classify = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """N x 3 x H x W to N x C x H x W logits."""
        height, width = images.shape[2:]
        x = pad(images, (0, -width % 16, 0, -height % 16))
        kept = []
        for index, block in enumerate(self.down):
            x = block(torch.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for widen, block, beside in zip(self.widen, self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([beside, widen(x)], dim=1))
        return self.classify(x)[:, :, :height, :width]
