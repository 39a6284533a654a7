"""A study's server that is away is waited for; nothing is done twice."""

import time

import optuna
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines import ledger, outages
from hemaml.engines.optuna_study import open_storage
from hemaml.engines.outages import awaited

SERVER = "postgresql+psycopg://me:secret@db/studies"
AWAY = OperationalError("select 1", {}, Exception("connection refused"))


def failing(times, result="done", error=AWAY):
    left = [error] * times

    def call():
        if left:
            raise left.pop()
        return result

    return call


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("HEMAML_STORE_WAIT", "0.5")


def test_a_server_is_waited_for_and_asked_again_in_other_words():
    assert awaited(SERVER, failing(3)) == "done"
    assert awaited(SERVER, failing(1, "first"), failing(2, "later")) == "later"


def test_a_server_that_stays_away_is_told_after_the_wait_without_its_password():
    begun = time.monotonic()
    with pytest.raises(StoreError, match="db/studies gave: .*connection refused") as told:
        awaited(SERVER, failing(10**6))
    assert time.monotonic() - begun < 5 and "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("location", "error"),
    [("/w/optuna.journal", AWAY), ("sqlite:////w/studies.db", AWAY),
     (SERVER, IntegrityError("insert", {}, Exception("not unique")))],
)  # fmt: skip
def test_what_no_waiting_mends_is_told_at_once(location, error):
    with pytest.raises(StoreError):
        awaited(location, failing(1, error=error))


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_a_wait_that_is_no_time_is_refused(monkeypatch, value):
    monkeypatch.setenv("HEMAML_STORE_WAIT", value)
    with pytest.raises(ConfigError, match="must be a number of seconds, but got"):
        awaited(SERVER, failing(1))


@pytest.mark.parametrize("lost", ["_ask", "tell", "both"])
def test_a_trial_whose_answer_was_lost_is_asked_for_and_told_once(tmp_path, monkeypatch, lost):
    """The storage carries each request out, and fails before it has said so."""
    monkeypatch.setattr(outages, "_is_server", lambda location: True)
    for name in ("ask", "tell"):
        if lost in (f"_{name}", name, "both"):
            monkeypatch.setattr(optuna.Study, name, losing_its_first(getattr(optuna.Study, name)))
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    study = Study("s", f"sqlite:///{tmp_path / 's.db'}", ("maximize",))
    sweep = Sweep(trials=3, sampler="random")
    with ledger.opened(space, sweep, study, lambda event: None) as books:
        while (assigned := books.next()) is not None:
            books.tell(assigned.number, Outcome("finished", (assigned.point["x"],)))
    opened = optuna.load_study(study_name="s", storage=open_storage(study.storage))
    assert [t.number for t in opened.trials] == [0, 1, 2]
    assert {t.state.name for t in opened.trials} == {"COMPLETE"}


def losing_its_first(method):
    lost = []

    def wrapped(self, *arguments, **named):
        answer = method(self, *arguments, **named)
        if not lost:
            lost.append(answer)
            raise AWAY
        return answer

    return wrapped
