"""A backbone with a head, of which the lower stages are frozen.

Shape suffixes: N batch, K classes.
"""

from typing import Self

from torch import Tensor, nn

from hemaml.nn.backbones import StagedNetwork


class ImageClassifier(nn.Module):
    """Features of a backbone, dropout, and a linear layer to the classes.

    Frozen stages have no gradients, and stay in evaluation mode even while the rest is trained: the
    running statistics of their batch norms are those of their weights.

    Args:
        backbone: Changed in place: which of its parameters need gradients.
        dim: Its features.
        num_classes: K.
        unfrozen: Stages that are trained, counted from the features down; 0 trains the head alone.
        dropout: Share of features dropped in training.
        hidden: Units of a layer before the last one; 0 for none.
    """

    def __init__(
        self,
        backbone: StagedNetwork,
        *,
        dim: int,
        num_classes: int,
        unfrozen: int,
        dropout: float,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        assert 0 <= unfrozen <= len(backbone), unfrozen
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module = nn.Linear(hidden or dim, num_classes)
        if hidden:
            self.head = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), self.head)
        self.num_frozen = len(backbone) - unfrozen
        for index, stage in enumerate(backbone):
            stage.requires_grad_(index >= self.num_frozen)

    def train(self, mode: bool = True) -> Self:
        """Puts what is not frozen into training mode."""
        super().train(mode)
        for stage in list(self.backbone)[: self.num_frozen]:
            stage.eval()
        return self

    def forward(self, x: Tensor, stage: int = 0) -> Tensor:
        """Logits N x K.

        Args:
            x: What `StagedNetwork.up_to` gives for `stage`: normalised images where it is 0.
            stage: Stages that are behind x.
        """
        logits: Tensor = self.head(self.dropout(self.backbone.onward(x, stage)))
        return logits
