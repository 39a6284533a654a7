"""The one epoch loop, blocks that models share, parameter counts."""
