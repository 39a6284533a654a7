"""Objectives of the task `lymphoma`: one file a model."""
