"""White-blood-cell segmentation (Jiang et al. 2024)."""
