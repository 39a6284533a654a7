"""Readers, generated smears, splits, decoding and augmentation."""
