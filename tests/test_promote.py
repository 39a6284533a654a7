"""Promotion from outside: a real store, real registered models, an objective that costs nothing."""

import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from promotions import check_race, prepared
from typer.testing import CliRunner

import hemaml
from hemaml import conclude
from hemaml.cli import app
from hemaml.core import settings
from hemaml.core.errors import ConfigError, Overtaken, StoreError, UnknownName
from hemaml.core.experiment import plan_from
from hemaml.core.markdown import SPACE
from hemaml.doctor import examine
from hemaml.tracking.mlflow_run import MlflowRun
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry

NAME = "stub-stub"


def trained(x, **changes):
    """A run of the stub with this score on any image; its id."""
    import stub

    document = deepcopy(stub.EXPERIMENT) | changes
    document["params"] = {"epochs": 1, "x": x}
    result = hemaml.run(plan_from(document, None))
    return result.run_id


def aliases():
    found = hemaml.models(NAME)
    return {alias: version.number for version in found for alias in version.aliases}


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def test_the_first_champion_then_a_better_one_then_back(stub):
    first = hemaml.promote(NAME, run=trained(0.5))
    assert first.outcome == "promoted" and first.champion is None and first.look == 1
    second = hemaml.promote(NAME, run=trained(0.9))
    assert second.outcome == "promoted" and second.champion.number == 1 and second.look == 2
    assert second.comparisons["score"].difference == pytest.approx(0.4)
    assert aliases() == {"champion": 2, "previous": 1, "candidate": 2}
    assert hemaml.rollback(NAME, reason="a new scanner").number == 1
    assert aliases() == {"champion": 1, "previous": 2, "candidate": 2}
    told = [(e.action, e.outcome, e.champion, e.version) for e in hemaml.history(NAME)]
    assert told == [
        ("promotion", "promoted", None, 1),
        ("promotion", "promoted", 1, 2),
        ("rollback", "rolled_back", 2, 1),
    ]
    last = hemaml.history(NAME)[-1]
    assert last.reason == "a new scanner" and "@" in last.who


def test_what_is_within_noise_or_worse_is_refused_and_the_alias_stays(stub):
    hemaml.promote(NAME, run=trained(0.5))
    for x in (0.55, 0.2):
        found = hemaml.promote(NAME, run=trained(x))
        assert found.outcome == "refused" and not found.passed
        assert [check.rule for check in found.verdict.failed] == ["score better than the champion"]
    assert aliases()["champion"] == 1
    assert [e.look for e in hemaml.history(NAME)] == [1, 2, 3]


def test_gates_of_the_experiment_decide(stub):
    gates = {"score": {"at_least": 0.6}, "params_total": {"at_most": 50}}
    assert hemaml.promote(NAME, run=trained(0.5, gates=gates)).outcome == "refused"
    assert hemaml.promote(NAME, run=trained(0.7, gates=gates)).outcome == "promoted"


def test_a_dry_run_is_a_look_that_moves_nothing(stub):
    found = hemaml.promote(NAME, run=trained(0.5), dry_run=True)
    assert found.outcome == "would_pass" and aliases() == {"candidate": 1}
    assert hemaml.promote(NAME).look == 2
    assert [e.action for e in hemaml.history(NAME)] == ["dry run", "promotion"]


def test_force_needs_a_reason_and_is_on_record(stub):
    hemaml.promote(NAME, run=trained(0.5))
    worse = trained(0.2)
    with pytest.raises(ConfigError, match="reason"):
        hemaml.promote(NAME, run=worse, force=" ")
    assert hemaml.promote(NAME, run=worse, force="recall").outcome == "forced"
    assert aliases()["champion"] == 2
    assert hemaml.history(NAME)[-1].reason == "recall"


def test_a_challenger_need_not_beat_the_champion(stub):
    hemaml.promote(NAME, run=trained(0.5))
    found = hemaml.promote(NAME, run=trained(0.45), alias="challenger")
    assert found.outcome == "promoted"
    assert aliases() == {"champion": 1, "challenger": 2, "candidate": 2}
    assert hemaml.history(NAME)[-1].action == "challenger"


def test_what_is_another_label_set_cannot_be_forced(stub, monkeypatch):
    hemaml.promote(NAME, run=trained(0.5))
    read = stub.task.read
    other = replace(stub.task, read=lambda section: replace(read(section), classes=("a", "b")))
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=other))
    found = hemaml.promote(NAME, run=trained(0.9), force="please")
    assert found.outcome == "refused" and not found.verdict.forceable
    assert "the champion has the same label set" in [c.rule for c in found.verdict.failed]
    assert aliases()["champion"] == 1


def test_other_data_is_another_held_out_part_and_refused(stub):
    hemaml.promote(NAME, run=trained(0.5))
    found = hemaml.promote(NAME, run=trained(0.9, data={"count": 30}))
    assert found.outcome == "refused"
    assert {c.rule for c in found.verdict.failed} == {
        "the champion was kept from the same held-out part",
        "the champion was trained on the same data",
    }


def test_data_that_changed_since_training_is_refused(stub, monkeypatch):
    run = trained(0.5)
    read = stub.task.read
    grown = replace(stub.task, read=lambda section: read({"count": 40}))
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=grown))
    found = hemaml.promote(NAME, run=run, force="please")
    assert found.outcome == "refused" and not found.verdict.forceable


def test_a_version_says_what_it_is(stub):
    run = trained(0.5, licence="CC-BY-4.0", intended_use="Teaching.")
    found = hemaml.promote(NAME, run=run)
    (version,) = hemaml.models(NAME)
    assert version.tags["held_out.score"] == "0.5000" and version.tags["val.score"]
    assert version.tags["trial_key"] and version.tags["param.x"] == "0.5"
    assert version.tags["data_digest"] and version.tags["split_digest"]
    client = MlflowClient(settings.tracking_uri(), settings.tracking_uri())
    card = client.get_model_version(NAME, "1").description.replace(SPACE, "")
    for told in ("Teaching.", "CC-BY-4.0", "## Held-out part", "| x | 0.5 |", "Does it work?"):
        assert told in card, told
    (entry,) = hemaml.history(NAME)
    verdict = json.loads(tracker().read_text(entry.run_id, "verdict.json"))
    assert verdict["decided"] == "promoted" and verdict["look"] == 1
    assert "@" in verdict["who"] and verdict["when"] and verdict["version"] == version.uri
    assert found.link.endswith(f"{entry.run_id}?workflowType=machine_learning")


def small_sweep(stub, monkeypatch):
    """Two trials and one seed, without figures."""
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: ())
    document = deepcopy(stub.EXPERIMENT)
    document["sweep"] |= {"trials": 2, "confirm_seeds": 1}
    return hemaml.sweep(plan_from(document, stub.SPACE))


def test_a_sweeps_winner_is_registered_when_it_is_promoted(stub, monkeypatch):
    result = small_sweep(stub, monkeypatch)
    with pytest.raises(UnknownName, match="registered model"):
        hemaml.models(NAME)
    found = hemaml.promote(NAME, sweep=result.id)
    assert found.outcome == "promoted" and found.version.tags["sweep"] == result.id
    assert found.version.run_id == result.run_id
    assert found.version.tags["param.x"] == str(result.best["x"])
    assert {t for t in found.version.tags if t.startswith("param.")} == {
        f"param.{name}" for name in ("x", "width", "epochs", "mode")
    }
    again = hemaml.promote
    with pytest.raises(ConfigError, match="is not the champion"):
        again(NAME, sweep=result.id)
    assert [v.number for v in hemaml.models(NAME)] == [1]


def test_a_resumed_sweeps_new_winner_is_a_version_of_its_own(stub, monkeypatch):
    """Gates read what training recorded of the version, not of what the sweep's run tells now."""
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])
    document = deepcopy(stub.EXPERIMENT) | {"gates": {"params_total": {"at_most": 100}}}
    space = {**stub.SPACE, "width": {"type": "categorical", "choices": [1, 100]}}
    first = [{"x": 0.9, "width": 100}]
    document["sweep"] = {**document["sweep"], "trials": 1, "first": first}
    swept = hemaml.sweep(plan_from(document, space))
    assert hemaml.promote(NAME, sweep=swept.id).outcome == "refused"
    more = ["sweep.trials=3", "sweep.first=[{x: 0.9, width: 100}, {x: 0.3, width: 1}]"]
    again = hemaml.resume(swept.id, overrides=more)
    assert again.best["width"] == 1
    old = hemaml.promote(NAME, version=1)
    (size,) = [check for check in old.verdict.checks if check.rule.startswith("params_total")]
    assert old.outcome == "refused" and not size.passed and size.found.startswith("1000")
    new = hemaml.promote(NAME, sweep=swept.id)
    assert new.version.number == 2 and new.outcome == "promoted"
    registry = Registry(settings.tracking_uri())
    assert registry.version(NAME, 1).tags["recorded.params_total"] == "1000.0"


def test_a_run_that_has_no_experiment_is_told(stub):
    foreign = MlflowClient(settings.tracking_uri()).create_run(tracker().experiment_id)
    with pytest.raises(ConfigError, match="is not of hemaml"):
        hemaml.promote(NAME, run=foreign.info.run_id)


def test_the_name_follows_from_task_and_data(stub):
    run = trained(0.5)
    with pytest.raises(ConfigError, match="'stub-stub'"):
        hemaml.promote("stub", run=run)
    with pytest.raises(UnknownName, match="registered model 'stub'"):
        hemaml.promote("stub")
    assert hemaml.promote("mine", run=trained(0.6, register="mine")).outcome == "promoted"
    with pytest.raises(ConfigError, match="named once"):
        hemaml.promote("mine", run=run, version=1)


def test_a_champion_that_changed_meanwhile_moves_nothing(stub, monkeypatch):
    hemaml.promote(NAME, run=trained(0.3))
    hemaml.promote(NAME, run=trained(0.4), dry_run=True)
    run, crown = trained(0.9), Registry.crown

    def late(registry, version, *, seen):
        crown(registry, registry.version(NAME, 2), seen=seen)
        crown(registry, version, seen=seen)

    monkeypatch.setattr(Registry, "crown", late)
    with pytest.raises(Overtaken, match="promote again"):
        hemaml.promote(NAME, run=run)
    assert aliases()["champion"] == 2
    assert hemaml.history(NAME)[-1].outcome == "overtaken"


def killed(monkeypatch, owner, name, when, *, after=False):
    """Promotes in a process that is killed at a call of `name`, before it or after it."""
    call = getattr(owner, name)

    def deadly(*arguments, **named):
        deadly_now = when(arguments)
        if deadly_now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **named)
        if deadly_now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(owner, name, deadly)
        try:
            hemaml.promote(NAME)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_moment_leaves_the_old_champion_or_the_new(stub, monkeypatch):
    hemaml.promote(NAME, run=trained(0.3))
    run = trained(0.6)
    hemaml.promote(NAME, run=run, alias="challenger")
    promoting, setting = sys.modules["hemaml.promote"], "set_registered_model_alias"

    def alias_is(alias):
        return lambda arguments: arguments[2] == alias

    for point, after, left, settled, champion in (
        ((promoting, "_evidence", lambda _: True), False, "running", "interrupted", 1),
        ((MlflowClient, setting, alias_is("previous")), False, "moving", "interrupted", 1),
        ((MlflowClient, setting, alias_is("champion")), False, "moving", "interrupted", 1),
        ((MlflowClient, setting, alias_is("champion")), True, "moving", "promoted", 2),
    ):
        killed(monkeypatch, *point, after=after)
        assert hemaml.history(NAME)[-1].outcome == left
        assert aliases()["champion"] == champion
        assert [f.state for f in examine() if f.what == "run"] == ["wrong"]
        examine(repair=True)
        assert hemaml.history(NAME)[-1].outcome == settled
        if champion == 1 and aliases().get("previous") == 1:
            with pytest.raises(ConfigError, match="that is not the champion"):
                hemaml.rollback(NAME, reason="it says that it is its own predecessor")
    trained_last = trained(0.9)
    tracker_run = hemaml.promote(NAME, run=trained_last, dry_run=True)
    assert tracker_run.version.number == 3
    killed(monkeypatch, MlflowRun, "end", lambda _: True)
    assert aliases() == {"champion": 3, "previous": 2, "challenger": 2, "candidate": 3}
    examine(repair=True)
    last = hemaml.history(NAME)[-1]
    assert last.outcome == "promoted" and tracker().get(last.run_id).status == "FINISHED"
    assert [e.look for e in hemaml.history(NAME)] == list(range(1, 9)), "each of them was a look"
    assert hemaml.rollback(NAME, reason="try").number == 2


def test_what_a_later_entry_saw_tells_how_a_killed_move_ended(stub, monkeypatch):
    """The alias has gone on by the time that somebody asks."""
    first, second = trained(0.3), trained(0.6)
    hemaml.promote(NAME, run=first)
    hemaml.promote(NAME, run=second, dry_run=True)
    where = MlflowClient, "set_registered_model_alias", lambda arguments: arguments[2] == "champion"
    killed(monkeypatch, *where)
    hemaml.promote(NAME)
    hemaml.rollback(NAME, reason="once")
    killed(monkeypatch, *where, after=True)
    hemaml.rollback(NAME, reason="twice")
    examine(repair=True)
    outcomes = [(e.champion, e.version, e.outcome) for e in hemaml.history(NAME)]
    assert outcomes[2:] == [
        (1, 2, "interrupted"), (1, 2, "promoted"), (2, 1, "rolled_back"), (1, 2, "promoted"),
        (2, 1, "rolled_back"),
    ]  # fmt: skip


def test_a_fault_of_the_store_after_the_move_is_no_interruption(stub, monkeypatch):
    set_tags, faults = MlflowRun.set_tags, [StoreError("the disk is full")]

    def faulty(run, values):
        if values.get("outcome") == "promoted" and faults:
            raise faults.pop()
        set_tags(run, values)

    run = trained(0.5)
    monkeypatch.setattr(MlflowRun, "set_tags", faulty)
    with pytest.raises(StoreError, match="full"):
        hemaml.promote(NAME, run=run)
    assert aliases()["champion"] == 1 and hemaml.history(NAME)[-1].outcome == "promoted"


def test_deleted_looks_still_count(stub):
    run = trained(0.5)
    hemaml.promote(NAME, run=run, dry_run=True)
    uri = settings.tracking_uri()
    MlflowClient(uri).delete_run(hemaml.history(NAME)[0].run_id)
    assert hemaml.promote(NAME, run=run, dry_run=True).look == 2
    assert [e.look for e in hemaml.history(NAME)] == [1, 2]


def test_a_run_that_was_taken_over_from_an_equal_one_has_its_own_gates(stub):
    first = trained(0.5)
    again = trained(0.5, gates={"score": {"at_least": 0.9}})
    assert tracker().get(again).tags["reused_from"] == first
    assert hemaml.promote(NAME, run=again).outcome == "refused"
    assert hemaml.promote(NAME, run=first).outcome == "promoted"


def test_models_of_others_are_told(stub):
    client = MlflowClient(settings.tracking_uri(), settings.tracking_uri())
    client.create_registered_model("theirs")
    with pytest.raises(ConfigError, match="versions that hemaml made"):
        hemaml.history("theirs")


@pytest.mark.slow
def test_of_eight_at_once_one_wins(stub, workplace):
    check_race(settings.tracking_uri(), workplace, NAME, prepared(trained), processes=8, rounds=2)


def test_promotions_and_sweep_ends_are_told(stub, monkeypatch, tmp_path):
    log = tmp_path / "told.jsonl"
    code = f"import sys; open({str(log)!r}, 'a').write(sys.stdin.read() + chr(10))"
    (tmp_path / "hook.py").write_text(code)
    monkeypatch.setenv("HEMAML_NOTIFY", f"{sys.executable} {tmp_path / 'hook.py'}")
    result = small_sweep(stub, monkeypatch)
    hemaml.promote(NAME, sweep=result.id)
    monkeypatch.setenv("HEMAML_NOTIFY", "/nowhere/hook")
    assert hemaml.promote(NAME, run=trained(0.99)).outcome in ("promoted", "refused")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [t["event"] for t in told] == ["sweep_end", "promotion"]
    assert told[0]["sweep"] == result.id and told[0]["outcome"] == "finished"
    assert told[1]["outcome"] == "promoted" and told[1]["link"].startswith("http://")
    notified = [tracker().get(e.run_id).tags["notified"] for e in hemaml.history(NAME)]
    assert notified == ["sent", "failed: FileNotFoundError"]


@pytest.mark.slow
def test_the_commands_from_a_sweep_to_a_rollback(workplace):
    """On generated smears; the exit code is the verdict, also that of a process of its own."""

    def process(*arguments, code):
        done = subprocess.run(
            [sys.executable, "-m", "hemaml.cli", *arguments], capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def command(*arguments):
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    tiny = ["--set", "data.count=24", "--set", "data.size=64", "--set", "params.epochs=2",
            "--set", "params.validate_every=1", "--set", "sweep.confirm_seeds=1"]  # fmt: skip
    low = ["--set", "gates={dice: {at_least: 0.01, better: true}}"]
    name = "wbc_segmentation-smears"
    smears = "experiments/wbc_segmentation/smgnn_smears.yaml"
    printed = command("run", smears, *tiny, *low)
    run = printed.rpartition("run ")[2].partition(";")[0]
    printed = command("promote", name, "--run", run)
    assert f"promoted: models:/{name}/1 is champion" in printed and "look 1 at these" in printed
    printed = command("run", smears, *tiny, *low, "--seed", "5")
    run = printed.rpartition("run ")[2].partition(";")[0]
    printed = process("promote", name, "--run", run, "--dry-run", code=1)
    assert "dice better than the champion" in printed and "refused" in printed
    assert "Wilcoxon" in printed
    printed = command("promote", name, "--version", "2", "--force", "for the test")
    assert f"FORCED: models:/{name}/2 is champion" in printed
    assert "champion, candidate" in command("models") or "candidate, champion" in command("models")
    assert "models:/wbc_segmentation-smears/1 is champion" in command(
        "rollback", name, "--reason", "worse"
    )
    printed = command("history", name)
    for told in ("promoted", "refused", "forced", "rolled_back", "for the test", "1 -> 2"):
        assert told in printed
    assert "known: wbc_segmentation-smears" in process("promote", "wbc", code=1)
