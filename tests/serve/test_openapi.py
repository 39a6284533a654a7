"""The API keeps to its own description, asked by Schemathesis."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve.fakes import FakeRegistry

from hemaml.serve.app import create_app
from hemaml.serve.champions import Champions
from hemaml.serve.limits import Desk
from hemaml.serve.openapi import openapi
from hemaml.serve.settings import ServeSettings

SETTINGS = ServeSettings(requests_per_minute=10**6)
CHECKS = [
    not_a_server_error, content_type_conformance, negative_data_rejection,
    response_headers_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip


def application():
    champions = Champions(FakeRegistry(), 60)
    champions._look()
    return create_app(champions, Desk(4), SETTINGS)


schema = schemathesis.openapi.from_wsgi("/openapi.json", application())


@schema.parametrize()
@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck), deadline=None)
def test_answers_are_as_described(case):
    case.call_and_validate(checks=CHECKS)


def test_the_description_is_valid_and_knows_the_token():
    from jsonschema_rs import validator_for

    document = openapi("0.1.0", SETTINGS.model_copy(update={"token": "x"}))
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {f"/api/v1/{n}" for n in (
        "health", "tasks", "models", "samples", "predict", "explain")}  # fmt: skip
    assert document["paths"]["/api/v1/predict"]["post"]["security"] == [{"bearer": []}]
    for component in document["components"]["schemas"].values():
        validator_for(component | {"components": document["components"]})


@pytest.mark.parametrize("name", ["predict", "explain"])
def test_every_refusal_is_described(name):
    responses = openapi("0.1.0", SETTINGS)["paths"][f"/api/v1/{name}"]["post"]["responses"]
    assert set(responses) == {"200", "400", "404", "413", "415", "422", "429", "503"}
