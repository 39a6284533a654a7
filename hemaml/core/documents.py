"""YAML in, validated models out, with the path of every fault."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hemaml.core.errors import ConfigError, UnknownName

M = TypeVar("M", bound=BaseModel)


UNREADABLE = (yaml.YAMLError, ValueError, AttributeError)
"""What the parser raises; the others for scalars that only look like a date or a number."""
MERGE = "tag:yaml.org,2002:merge"
"""Of `<<`, which takes over another mapping's keys, the ones given beside it excepted."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=deep) for k, _ in node.value if k.tag != MERGE]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise ConfigError(
                    f"a key must stand once in a mapping, but {key!r} stands twice "
                    f"in the one that starts at line {line}."
                )
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        ConfigError: No YAML, a key given twice, or not a mapping.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except UNREADABLE as error:
        raise ConfigError(f"{name} must be YAML, but the parser says: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name} must be a mapping of keys, but it is {document!r}.")
    return document


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; see `parse_yaml`."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be a readable text file, but: {error}") from error


def validated(model: type[M], document: object, where: str) -> M:
    """The document as a model.

    Args:
        model: A pydantic class.
        document: What YAML gave.
        where: Name of the file or section, first part of the path of each fault.

    Raises:
        ConfigError: One line a fault: path, rule, value received.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        lines = [_fault(model, fault, where) for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _fault(model: type[BaseModel], fault: Any, where: str) -> str:
    *parents, last = (str(part) for part in fault["loc"]) if fault["loc"] else ("",)
    path = ".".join(part for part in (where, *parents, last) if part)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, parents)
        return f"{path}: {UnknownName('key', last, known)}" if known else f"{path}: unknown key."
    message = fault["msg"].removeprefix("Value error, ")
    value = fault["input"]
    shown = "" if isinstance(value, (Mapping, list)) else f" (got {value!r})"
    return f"{path}: {message}{shown}"


def _known_keys(model: type[BaseModel], parents: list[str]) -> list[str]:
    """The keys allowed at a path, where it leads through plain nested models."""
    for part in parents:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces; what digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump_yaml(value: Mapping[str, Any]) -> str:
    """YAML text in the order given."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


def override(document: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """The document with one `key=value` of `--set` applied; dots lead into sections.

    The value is read as YAML, so `true`, `3` and `[1, 2]` mean what they mean in the file.

    Raises:
        ConfigError: No `=`, or the path leads through something that is no section.
    """
    path, separator, text = assignment.partition("=")
    if not separator or not path:
        raise ConfigError(f"`--set` takes key=value, but got {assignment!r}.")
    changed = deepcopy(dict(document))
    section = changed
    *parents, last = path.split(".")
    for part in parents:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigError(f"`--set {assignment}`: {part!r} is a value, not a section.")
    try:
        section[last] = yaml.safe_load(text)
    except UNREADABLE as error:
        raise ConfigError(f"`--set {assignment}`: the value must be YAML, but: {error}") from error
    result: dict[str, Any] = changed
    return result
