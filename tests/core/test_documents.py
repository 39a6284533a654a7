"""YAML files: what they may say beyond plain mappings."""

from datetime import date

import pytest

from hemaml.core.documents import override, parse_yaml
from hemaml.core.errors import ConfigError


def test_a_mapping_may_take_over_another_and_change_some_keys():
    text = "first: &a {x: 1, y: 2}\nsecond: {<<: *a, y: 3}"
    assert parse_yaml(text, "a.yaml")["second"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["seed: 2024-13-45", "2024-02-31: 1"])
def test_a_scalar_that_only_looks_like_a_date_is_told(text):
    with pytest.raises(ConfigError, match="must be YAML"):
        parse_yaml(text, "mine.yaml")


def test_a_document_with_a_date_can_be_changed():
    document = {"paper": {"source": date(2024, 1, 1)}, "seed": 0}
    assert override(document, "seed=1") == {**document, "seed": 1}
    with pytest.raises(ConfigError, match="the value must be YAML"):
        override(document, "seed=2024-02-31")
