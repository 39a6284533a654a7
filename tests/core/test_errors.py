"""Errors on their way between processes."""

import pickle
from pathlib import Path

import pytest

from hemaml.core import errors
from hemaml.core.errors import HemamlError, UnknownName
from hemaml.data.problems import BadFile
from hemaml.training import GoalError


def below(kind):
    return [kind, *(found for inner in kind.__subclasses__() for found in below(inner))]


HERE = [kind for kind in below(HemamlError) if kind.__module__ == errors.__name__]
MADE = {
    UnknownName: lambda: UnknownName("model", "smgn", ["smgnn", "unet"]),
    GoalError: lambda: GoalError("metric to optimise", "dise", ["dice", "iou"]),
    BadFile: lambda: BadFile(Path("a.png"), "an image must be whole", "4 bytes", "Copy it again."),
}


@pytest.mark.parametrize("kind", dict.fromkeys([*HERE, *MADE]), ids=lambda kind: kind.__name__)
def test_every_error_crosses_processes_with_its_words(kind):
    error = MADE[kind]() if kind in MADE else kind("lr must be above 0, but got -1.")
    there = pickle.loads(pickle.dumps(error))
    assert str(there) == str(error)
    assert isinstance(error, type(there))
    assert kind in MADE or type(there) is kind
