"""Leukemia from images of cells (Kapadia and Swarnalatha, hybrid CNN and GNN)."""
