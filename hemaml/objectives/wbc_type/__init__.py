"""Objectives of the task `wbc_type`: one file each."""
