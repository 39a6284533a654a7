"""What a test asks of the machine: absent, it skips the test, and fails it where CI is set."""

import os

import pytest


def needed(what):
    """Ends a test that needs what is absent."""
    told = f"needs {what}"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)
