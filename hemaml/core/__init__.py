"""Contracts and plain values that every layer shares; imports nothing above it."""
