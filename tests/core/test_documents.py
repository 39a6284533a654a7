"""YAML files: what they may say beyond plain mappings."""

from hemaml.core.documents import parse_yaml


def test_a_mapping_may_take_over_another_and_change_some_keys():
    text = "first: &a {x: 1, y: 2}\nsecond: {<<: *a, y: 3}"
    assert parse_yaml(text, "a.yaml")["second"] == {"x": 1, "y": 3}
