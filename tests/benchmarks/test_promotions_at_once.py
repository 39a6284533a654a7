"""Eight processes that promote at once, many times: exactly one wins each round.

    pytest tests/benchmarks/test_promotions_at_once.py -s

The test suite plays two rounds. On a server a move waits `SETTLE_S` for its claim to settle.
"""

import time
from copy import deepcopy

import pytest
from promotions import check_race, mlflow_server, prepared

import hemaml
from hemaml.core import settings
from hemaml.core.experiment import plan_from

NAME = "stub-stub"


def trained(x, **changes):
    import stub

    document = deepcopy(stub.EXPERIMENT) | changes
    document["params"] = {"epochs": 1, "x": x}
    return hemaml.run(plan_from(document, None)).run_id


def play(uri, folder, processes, rounds):
    started = time.perf_counter()
    check_race(uri, folder, NAME, prepared(trained), processes=processes, rounds=rounds)
    seconds = time.perf_counter() - started
    print(
        f"\n{processes} at once, {rounds} rounds: one winner each, trail complete; {seconds:.0f} s"
    )


def test_on_an_embedded_store(stub, workplace):
    play(settings.tracking_uri(), workplace, processes=8, rounds=20)


@pytest.mark.parametrize(("processes", "rounds"), [(4, 3)])
def test_on_a_server(stub, workplace, monkeypatch, processes, rounds):
    with mlflow_server(workplace) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        play(address, workplace, processes, rounds)
