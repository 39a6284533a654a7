"""Versions and aliases of a real store, and who may move a champion."""

import multiprocessing
import time

import pytest
from mlflow import MlflowClient
from promotions import mlflow_server

from hemaml.core.errors import ConfigError, Overtaken, UnknownName
from hemaml.tracking import registry as module
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry

NAME = "leukemia"
PROCESSES, ROUNDS = 8, 20


def store(folder, num):
    """The URI of a new store with a registered model of so many versions."""
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    fill(uri, num)
    return uri


def fill(uri, num):
    run = MlflowTracker(uri, "leukemia").start("r", {})
    client = MlflowClient(uri, uri)
    source = f"{client.get_run(run.id).info.artifact_uri}/model"
    client.create_registered_model(NAME)
    for _ in range(num):
        client.create_model_version(NAME, source, run.id, {"objective": "leukemia.svm"})


@pytest.fixture
def registry(workplace):
    return Registry(store(workplace, 3))


def test_versions_come_back_with_aliases_and_tags(registry):
    first, second, _ = registry.versions(NAME)
    assert (first.number, first.uri) == (1, "models:/leukemia/1")
    assert first.tags == {"objective": "leukemia.svm"} and first.aliases == ()
    registry.point(second, "challenger")
    registry.set_tags(second, {"note": "x"})
    found = registry.by_alias(NAME, "challenger")
    assert found.number == 2 and found.aliases == ("challenger",) and found.tags["note"] == "x"
    assert registry.by_alias(NAME, "champion") is None
    assert registry.names() == [NAME]


def test_unknown_names_list_the_known_ones(registry):
    with pytest.raises(UnknownName, match=r"'leukaemia'; known: leukemia"):
        registry.versions("leukaemia")
    with pytest.raises(UnknownName, match="'7'; known: 1, 2, 3"):
        registry.version(NAME, 7)


def test_the_champion_of_before_becomes_the_previous_one(registry):
    first, second, third = registry.versions(NAME)
    registry.crown(first, seen=None)
    assert registry.by_alias(NAME, "previous") is None
    registry.crown(second, seen=first)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    registry.crown(third, seen=second)
    assert aliases(registry) == {"champion": 3, "previous": 2}


def aliases(registry):
    return {a: v.number for v in registry.versions(NAME) for a in v.aliases}


def test_who_saw_another_champion_moves_nothing(registry):
    first, second, third = registry.versions(NAME)
    registry.crown(first, seen=None)
    for seen in (None, second):
        with pytest.raises(Overtaken, match="is version 1"):
            registry.crown(third, seen=seen)
    assert aliases(registry) == {"champion": 1}


def test_a_kill_between_the_two_moves_leaves_the_old_champion(registry, monkeypatch):
    first, second, _ = registry.versions(NAME)
    registry.crown(first, seen=None)
    set_alias = MlflowClient.set_registered_model_alias

    def killed(client, name, alias, version):
        if alias == "champion":
            raise SystemExit
        set_alias(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", killed)
    with pytest.raises(SystemExit):
        registry.crown(second, seen=first)
    monkeypatch.undo()
    assert registry.by_alias(NAME, "champion").number == 1
    registry.crown(second, seen=first)
    assert aliases(registry) == {"champion": 2, "previous": 1}


def test_a_process_that_hangs_with_the_claim_is_an_error(registry, monkeypatch):
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.1)
    first = registry.versions(NAME)[0]
    with registry._claimed(NAME), pytest.raises(ConfigError, match="one process at a time"):
        Registry(registry.uri).crown(first, seen=None)


def move(uri, process, rounds, barrier, results):
    """Tries to crown a version of its own each round; all start from the same champion."""
    registry = Registry(uri)
    for number in range(rounds):
        barrier.wait()
        seen = registry.by_alias(NAME, "champion")
        mine = registry.version(NAME, 2 * process + number % 2 + 1)  # never the champion itself
        barrier.wait()
        try:
            registry.crown(mine, seen=seen)
            results.put((number, mine.number))
        except Overtaken:
            results.put((number, None))


def race(uri, processes, rounds):
    """For each round the versions that were crowned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hemaml.tracking.registry"])
    barrier, results = context.Barrier(processes), context.Queue()
    arguments = [(uri, i, rounds, barrier, results) for i in range(processes)]
    workers = [context.Process(target=move, args=each) for each in arguments]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=240) for _ in range(processes * rounds)]
    for worker in workers:
        worker.join()
    return [[won for at, won in outcomes if at == number and won] for number in range(rounds)]


@pytest.mark.slow
def test_of_many_at_once_one_wins_each_round(workplace):
    uri = store(workplace, 2 * PROCESSES)
    won = race(uri, PROCESSES, ROUNDS)
    assert [len(winners) for winners in won] == [1] * ROUNDS
    assert aliases(Registry(uri)) == {"champion": won[-1][0], "previous": won[-2][0]}


@pytest.fixture
def server(workplace):
    """A real MLflow server on a store of its own; its address."""
    with mlflow_server(workplace) as address:
        yield address


@pytest.mark.slow
def test_on_a_server_a_claim_keeps_the_others_out(server, workplace, monkeypatch):
    fill(server, 6)
    monkeypatch.setattr(module, "SETTLE_S", 0.5)
    registry = Registry(server)
    first, second, *_ = registry.versions(NAME)
    registry.crown(first, seen=None)
    assert aliases(registry) == {"champion": 1}
    client = MlflowClient(server, server)
    client.set_registered_model_tag(NAME, module.CLAIM, f"{time.time():.0f} another")
    with pytest.raises(Overtaken, match="claimed by another"):
        registry.crown(second, seen=first)
    client.set_registered_model_tag(NAME, module.CLAIM, f"{time.time() - 1000:.0f} of the dead")
    registry.crown(second, seen=first)
    assert aliases(registry) == {"champion": 2, "previous": 1}
    assert module.CLAIM not in client.get_registered_model(NAME).tags

    won = race(server, 3, 2)
    assert [len(winners) for winners in won] == [1, 1]
