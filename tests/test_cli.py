"""The command line from outside: exit codes, messages, and what is left in the stores."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from hemaml.cli import app, main
from hemaml.core import settings
from hemaml.core.errors import HemamlError, TrialError
from hemaml.tracking.mlflow_tracker import MlflowTracker

SMEARS = "experiments/wbc_segmentation/smgnn_smears.yaml"
TINY = ["--set", "data.count=16", "--set", "data.size=48", "--set", "params.epochs=2",
        "--set", "params.validate_every=1"]  # fmt: skip


def call(*arguments):
    """Runs a command in this process; an error of the user's is raised as it is."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.stdout


def hemaml(*arguments, **options):
    """Runs a command as its own process."""
    command = [sys.executable, "-m", "hemaml.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def tracker():
    return MlflowTracker(settings.tracking_uri(), "wbc_segmentation")


def test_help_names_every_command_and_is_quick_to_import():
    done = hemaml("--help")
    assert done.returncode == 0
    for name in ("list", "check", "data", "run", "sweep", "evaluate", "ui", "cache", "doctor"):
        assert re.search(rf"^│ {name} ", done.stdout, re.M), name
    probe = "import sys, hemaml.cli; print([m for m in ('torch', 'mlflow', 'optuna', 'numpy')"
    probe += " if m in sys.modules])"
    heavy = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert heavy.stdout.strip() == "[]", heavy


def test_check_says_that_it_has_nothing_to_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HemamlError, match="experiments/<task>/<name>.yaml, but .* has none"):
        call("check")


def test_list_and_check_know_every_experiment(workplace):
    code, shown = call("list")
    assert code == 0 and "wbc_segmentation.smgnn" in shown and "smears" in shown
    code, shown = call("check")
    assert code == 0
    for path in Path("experiments").glob("*/*.yaml"):
        assert path.name in shown


def test_check_names_each_fault_and_fails(workplace):
    for name in ("experiments", "search_spaces"):
        Path(name).unlink()
        shutil.copytree(Path(__file__).parents[1] / name, name)
    path = Path(SMEARS)
    path.write_text(path.read_text() + "\nswep: 3\n")
    code, shown = call("check")
    assert code == 1 and "unknown key 'swep'; known: sweep" in shown
    assert shown.count(" ok ") == len(list(Path("experiments").glob("*/*.yaml"))) - 1


def write_pairs(folder, num=4):
    """Images and masks of hemaml's own smears as files of any laboratory."""
    from hemaml.data.reading import read_dataset

    data = read_dataset({"reader": "smears", "count": num, "size": 48})
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    grey = np.array([0, 128, 255], dtype=np.uint8)
    for name, image, mask in zip(data.ids, data.images, data.masks, strict=True):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(grey[mask]).save(folder / "masks" / f"{name}.png")
    return data.ids


PAIRS = ["image_mask_pairs", "--set", "root=pairs", "--set",
         "levels={background: 0, cytoplasm: 128, nucleus: 255}"]  # fmt: skip


def test_data_commands_on_a_folder_of_pairs(workplace, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(workplace))
    ids = write_pairs(workplace / "pairs")
    assert call("data", "verify", *PAIRS)[0] == 0
    code, shown = call("data", "show", *PAIRS, "--out", "sheet.png")
    with Image.open("sheet.png") as sheet:
        assert code == 0 and sheet.size[0] > 200
    folder = workplace / "pairs"
    (folder / "masks" / f"{ids[0]}.png").unlink()
    broken = folder / "images" / f"{ids[1]}.png"
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("L", (10, 10)).save(folder / "masks" / f"{ids[2]}.png")
    result = CliRunner().invoke(app, ["data", "verify", *PAIRS])
    assert result.exit_code != 0
    for name in ids[:3]:
        assert name in result.stdout
    assert ids[3] not in result.stdout
    with pytest.raises(HemamlError, match="data verify"):
        call("data", "show", *PAIRS)


def test_data_import_is_whole_or_not_at_all(workplace):
    write_pairs(workplace / "source")
    shutil.make_archive("cells", "zip", "source")
    assert call("data", "import", "cells.zip", "target")[0] == 0
    assert len(list(Path("target").rglob("*.png"))) == 8
    with pytest.raises(HemamlError):
        call("data", "import", "cells.zip", "target")
    with pytest.raises(HemamlError):
        call("data", "import", "cells.zip", "other", "--checksum", "0" * 64)
    assert not Path("other").exists()


def test_cache_commands(workplace):
    from hemaml.core.cache import Cache

    Cache(settings.cache_root()).arrays("region_graph", {}, lambda: {"a": np.zeros(9)})
    code, shown = call("cache", "show")
    assert code == 0 and "region_graph" in shown
    assert call("cache", "clear")[0] == 0
    assert "region_graph" not in call("cache", "show")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "experiments/wbc_segmentation/nothing.yaml"], "known: .*smgnn_smears.yaml"),
        (["run", SMEARS, "--set", "params.lrr=1"], "unknown parameter .*'lrr'; known: lr"),
        (["run", SMEARS, "--set", "data.cuont=1"], "cuont"),
        (["run", SMEARS, "--set", "device=cuda"], "needs a GPU that torch can use"),
        (["run", "experiments/wbc_segmentation/smgnn.yaml"], "HEMAML_DATA"),
        (["sweep", SMEARS, "--resume", "--id", "nothing"], "unknown sweep 'nothing'"),
        (["sweep", SMEARS, "--id", "nothing"], "give --resume with it"),
        (["sweep", SMEARS, "--trials", "0"], "greater than or equal to 1"),
        (["evaluate", SMEARS, "--splits", "0"], "`splits >= 1` must hold"),
        (["doctor", "--sweep", "nothing"], "unknown sweep"),
        (["data", "verify", "smear"], "unknown reader 'smear'; known: smears"),
    ],
)
def test_errors_say_the_rule_and_leave_nothing(workplace, arguments, told):
    with pytest.raises(HemamlError, match=told):
        call(*arguments)
    if (workplace / "mlruns" / "mlflow.db").exists():
        assert tracker().find({}) == []


def test_ui_tells_of_a_port_that_is_taken_and_names_links_all_the_same(workplace):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            HemamlError, match=rf"listens at 127.0.0.1:{port}.*hemaml ui --port \d+"
        ):
            call("ui", "--port", str(port))
        code, shown = call("ui", "--port", str(port), "--links")
    assert code == 0 and f"served at http://127.0.0.1:{port}" in shown


def test_errors_go_to_stderr_without_a_traceback(workplace):
    done = hemaml("run", "nothing.yaml")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: unknown experiment") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_run_evaluate_and_doctor_on_generated_smears(workplace):
    code, shown = call("run", SMEARS, *TINY, "--set", "params.scale=9")  # which a sweep searches
    assert code == 0 and "dice" in shown
    (run,) = tracker().find({"kind": "run"})
    assert float(run.params["scale"]) == 9
    assert run.status == "FINISHED" and run.metrics["params_total"] == pytest.approx(7000, rel=0.1)
    assert tracker().read_text(run.id, "pictures/per_class.html")
    assert call("run", SMEARS, *TINY, "--set", "params.scale=9")[0] == 0
    runs = tracker().find({"kind": "run"})
    assert runs[1].tags["reused_from"] == run.id and runs[1].metrics["dice"] == run.metrics["dice"]
    code, shown = call("evaluate", SMEARS, "--splits", "2", "--run", run.id, *TINY)
    assert code == 0 and "dice_with_background" in shown
    (above,) = tracker().find({"kind": "evaluation"})
    splits = tracker().find({"kind": "split"}, parent=above.id)
    assert len(splits) == 2 and all(s.tags["protocol.paper"] == "true" for s in splits)
    mean = sum(split.metrics["test/dice"] for split in splits) / 2
    assert above.metrics["test/dice"] == pytest.approx(mean)
    assert call("doctor")[0] == 0


@pytest.mark.slow
def test_a_sweep_survives_kill_9_of_its_parent(workplace):
    """Finished trials are kept as they are, the rest is done once, and no run stays RUNNING."""
    command = [sys.executable, "-m", "hemaml.cli", "sweep", SMEARS, *TINY, "--plain"]
    command += ["--trials", "8", "--workers", "2", "--set", "params.epochs=6"]
    command += ["--set", "sweep.confirm_seeds=1", "--set", "sweep.checkpoint_seconds=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(4)]  # its id, then three trials
        process.kill()
    sweep_id = lines[0].split()[1]
    (parent,) = tracker().find({"kind": "sweep"})
    assert parent.tags["sweep"] == sweep_id
    _wait_until_quiet(parent.id)
    before = {
        run.tags["trial"]: run
        for run in tracker().find({"kind": "trial"}, parent=parent.id)
        if run.tags["outcome"] == "finished"
    }
    assert 3 <= len(before) < 8
    code, told = call("doctor", "--sweep", sweep_id)
    assert code == 1 and "RUNNING" in told
    code, told = call("doctor")
    assert code == 1 and parent.name in told.replace("\n", "")
    done = hemaml("sweep", SMEARS, "--resume")
    assert done.returncode == 0, done.stderr
    after = tracker().find({"kind": "trial"}, parent=parent.id)
    assert sorted(run.tags["trial"] for run in after) == [str(i) for i in range(8)]
    assert {run.status for run in tracker().find({}, parent=parent.id)} == {"FINISHED"}
    assert all(run == before[run.tags["trial"]] for run in after if run.tags["trial"] in before)
    assert tracker().get(parent.id).status == "FINISHED"
    assert call("doctor", "--sweep", sweep_id)[0] == 0
    assert not list((workplace / "mlruns" / "scratch").iterdir())


@pytest.mark.slow
def test_doctor_ends_what_a_killed_run_left(workplace):
    command = [sys.executable, "-m", "hemaml.cli", "run", SMEARS, *TINY]
    with subprocess.Popen([*command, "--set", "params.epochs=9999"]) as process:
        while not (found := tracker().find({"kind": "run"})):
            time.sleep(0.2)
        assert call("doctor")[0] == 0, "a run at work is no fault"
        process.kill()
    done = hemaml("doctor")
    assert done.returncode == 1 and found[0].name in done.stdout
    assert call("doctor", "--repair")[0] == 0
    left = tracker().get(found[0].id)
    assert (left.status, left.tags["outcome"]) == ("KILLED", "interrupted")
    assert call("doctor")[0] == 0


def _wait_until_quiet(run_id):
    """Orphaned workers end by themselves; nothing of theirs may be written after."""
    time.sleep(1.5)
    first = [(r.id, r.metrics) for r in tracker().find({}, parent=run_id)]
    time.sleep(1)
    assert first == [(r.id, r.metrics) for r in tracker().find({}, parent=run_id)]


def test_a_sweep_of_which_no_trial_started_says_so(workplace):
    with pytest.raises(TrialError, match="none was started within `hours`"):
        call("sweep", SMEARS, *TINY, "--plain", "--set", "sweep.hours=1e-9")


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_cleanly_and_says_how_to_go_on(workplace):
    command = [sys.executable, "-m", "hemaml.cli", "sweep", SMEARS, *TINY, "--plain"]
    command += ["--trials", "30"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    sweep_id = process.stdout.readline().split()[1]
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert f"hemaml sweep {SMEARS} --resume --id {sweep_id}" in told
    (parent,) = tracker().find({"kind": "sweep"})
    assert parent.status == "KILLED"
    runs = tracker().find({"kind": "trial"}, parent=parent.id)
    assert runs and {run.status for run in runs} <= {"FINISHED", "KILLED"}
    assert {run.tags["outcome"] for run in runs} <= {"finished", "interrupted"}


def test_a_batch_system_that_ends_a_sweep_leaves_it_in_order(stub, tmp_path, monkeypatch, capsys):
    """SIGTERM is what `docker stop` and schedulers send."""
    for folder, content in (("experiments", stub.EXPERIMENT), ("search_spaces", stub.SPACE)):
        file = tmp_path / "mine" / folder / "stub" / "stub.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))  # JSON is YAML
    path = str(tmp_path / "mine/experiments/stub/stub.yaml")
    stub.on_step.append(lambda epoch: len(stub.trained) == 3 and os.kill(os.getpid(), 15))
    monkeypatch.setattr(sys, "argv", ["hemaml", "sweep", path, "--plain"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130 and f"hemaml sweep {path} --resume" in capsys.readouterr().err
    runs = MlflowTracker(settings.tracking_uri(), "stub").find({})
    outcomes = [run.tags["outcome"] for run in runs if run.tags["kind"] == "trial"]
    assert outcomes == ["finished", "finished", "interrupted"]
    assert {run.status for run in runs} == {"FINISHED", "KILLED"}


@pytest.mark.slow
def test_a_lost_tracking_server_ends_the_command_with_its_address(workplace):
    done = hemaml(
        "run", SMEARS, *TINY,
        env=os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
                          "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode == 1 and "http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
