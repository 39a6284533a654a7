"""The only package that imports samplers; one `search` function an engine."""
