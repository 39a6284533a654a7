"""The epoch loop, network blocks and parameter counts."""
