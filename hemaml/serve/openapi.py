"""The API described as OpenAPI 3.1, from the models of its answers."""

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hemaml.explain.heat_maps import METHODS
from hemaml.serve.answers import (
    Answer,
    Explanation,
    Health,
    Models,
    Prediction,
    Problem,
    Samples,
    Tasks,
)
from hemaml.serve.problems import PROBLEM_JSON
from hemaml.serve.settings import ServeSettings
from hemaml.serve.uploads import FORM

REFUSALS = {
    "400": "A field is missing, there are too many images, or the form cannot be read.",
    "404": "There is no such model, class or method.",
    "413": "Too many bytes, or parts of a form.",
    "415": "No form with files.",
    "422": "A file is no picture that is taken, or the model cannot do what is asked.",
    "429": "Too many requests; Retry-After says when to ask again.",
    "503": "Too many wait; Retry-After says when to ask again.",
}
FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
MODEL = {
    "type": "string",
    "description": "Name of the registered model; may be left out where one alone is served.",
}


def openapi(version: str, settings: ServeSettings) -> dict[str, Any]:
    """The document of a server with these settings."""
    answers = (Health, Tasks, Models, Samples, Prediction, Explanation)
    kinds: tuple[type[BaseModel], ...] = (*answers, Problem)
    documents: list[tuple[type[BaseModel], Literal["serialization"]]] = [
        (kind, "serialization") for kind in kinds
    ]
    _, found = models_json_schema(
        documents,
        ref_template="#/components/schemas/{model}",
    )
    locked = settings.token is not None
    components: dict[str, Any] = {"schemas": found["$defs"]}
    if locked:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    files = {"type": "array", "items": FILE, "minItems": 1, "maxItems": settings.images}
    method = {"type": "string", "enum": sorted(METHODS), "description": "Of a heat map."}
    target = {"type": "string", "description": "A class; by default the most probable."}
    fields = {"image": FILE, "model": MODEL, "target": target, "method": method}
    paths = {
        "/api/v1/health": {"get": _operation("health", Health, "Whether it can answer.")},
        "/api/v1/tasks": {"get": _operation("tasks", Tasks, "Tasks that are served.", locked)},
        "/api/v1/models": {"get": _operation("models", Models, "Models that answer.", locked)},
        "/api/v1/samples": {"get": _operation("samples", Samples, "Drawn images.", locked)},
        "/api/v1/predict": {
            "post": _operation("predict", Prediction, "What a model says of images.", locked)
            | _form({"images": files, "model": MODEL}, "images")
        },
        "/api/v1/explain": {
            "post": _operation("explain", Explanation, "Why it says so of one.", locked)
            | _form(fields, "image")
        },
    }
    for name in ("predict", "explain"):
        paths[f"/api/v1/{name}"]["post"]["responses"] |= {
            status: _problem(text) for status, text in REFUSALS.items()
        }
    info = {
        "title": "hemaml",
        "version": version,
        "description": "Champions of hemaml's registry. For research, not for diagnosis.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(
    name: str, answer: type[Answer], summary: str, locked: bool = False
) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer.__name__}"}
    content = {"application/json": {"schema": schema}}
    responses = {"200": {"description": summary, "content": content}}
    found: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if locked:
        responses["401"] = _problem("The token is missing or wrong.")
        found["security"] = [{"bearer": []}]
    return found


def _form(fields: dict[str, Any], required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "required": [required]}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {PROBLEM_JSON: {"schema": schema}}}
