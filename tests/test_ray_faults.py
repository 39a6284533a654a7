"""What a sweep on Ray survives, on real processes: two raylets, real kills, real stores.

After each: no finished trial lost, none twice, no run RUNNING, and study and record agree.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hemaml.core.search import Study
from hemaml.doctor import examine_sweep
from hemaml.engines.optuna_engine import searched
from hemaml.record import find_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker

SCRIPT = Path(__file__).parent / "ray_faults.py"
LATE_S = 300
"""What takes longer hangs; on a busy machine the start of the workers alone has taken 50 s."""
pytestmark = pytest.mark.slow


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    with Path("driver.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def end(process):
    try:
        code = process.wait(timeout=LATE_S)
    finally:
        process.kill()
        process.wait()
    assert code == 0, Path("driver.log").read_text()[-3000:]


def sweep_id():
    return Path("sweep.id").read_text()


def trials():
    record = find_sweep(sweep_id())
    study = Study(record.tags["study"], str(Path("mlruns/optuna.journal").resolve()), ("maximize",))
    return searched(study)


def check_nothing_is_lost(*, failed=(), num=8):
    findings = examine_sweep(sweep_id())
    assert {f.state for f in findings} == {"ok"}, findings
    found = trials()
    assert [t.number for t in found] == list(range(num))
    assert [t.number for t in found if t.ending != "finished"] == list(failed)
    assert find_sweep(sweep_id()).status == "FINISHED"
    assert Counter(run.tags["trial"] for run in runs()) == Counter(str(n) for n in range(num))


def runs():
    tracker = MlflowTracker(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db", "stub")
    return tracker.find({}, parent=find_sweep(sweep_id()).id)


@pytest.fixture(autouse=True)
def _alone(stub):
    """A working folder of its own."""


def test_kills_of_a_worker_and_a_node_cost_no_trial_and_a_hang_costs_its_own():
    end(start("worker+node+hang"))
    check_nothing_is_lost(failed=[3])
    assert "longer than `trial_hours" in trials()[3].reason


def killed_once(seen, *arguments):
    """Kills the driver once something is seen; what it was then."""
    process = start(*arguments)
    deadline = time.monotonic() + LATE_S
    while not seen() and time.monotonic() < deadline:
        assert process.poll() is None, Path("driver.log").read_text()[-3000:]
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return seen()


def test_a_kill_of_the_driver_costs_no_finished_trial():
    done = killed_once(_finished, "none")
    assert 1 <= len(done) < 8
    end(start("none", sweep_id()))
    check_nothing_is_lost()
    assert set(done.items()) <= set(_finished().items())


def _finished():
    """Number to run of the trials that the study has as finished, at least two of them."""
    if not Path("sweep.id").exists():
        return {}
    found = {t.number: t.run_id for t in trials() if t.ending == "finished"}
    return found if len(found) > 1 else {}


def test_a_population_goes_on_from_what_its_trials_took_over_before_a_kill_of_the_driver():
    changed = killed_once(_changed, "population")
    assert changed and not _finished()
    end(start("population", sweep_id()))
    check_nothing_is_lost(num=2)
    assert all(_changed().get(number, 0) >= times for number, times in changed.items())


def _changed():
    """Trial to how often its values have changed on the way, of those that have."""
    if not Path("sweep.id").exists():
        return {}
    return {run.tags["trial"]: int(run.tags["changes"]) for run in runs() if "changes" in run.tags}
