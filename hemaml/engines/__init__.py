"""The only package that imports samplers and Ray; one `search` function an engine."""

from importlib import import_module
from typing import cast

from hemaml.core.search import Search
from hemaml.core.sweep import Engine

MODULES: dict[Engine, str] = {"native": "optuna_engine", "ray": "ray_engine"}

SHARED: frozenset[Engine] = frozenset({"ray"})
"""Engines whose workers on one node map the arrays that travel to them: one copy serves all."""


def search_of(engine: Engine) -> Search:
    """The `search` of an engine, imported now: a native sweep shall not wait for Ray."""
    return cast(Search, import_module(f"hemaml.engines.{MODULES[engine]}").search)
