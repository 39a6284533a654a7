"""Every experiment reads, every search space belongs to one, every objective has one."""

from functools import cache
from pathlib import Path

import pytest

from hemaml.core.experiment import load_experiment
from hemaml.core.objective import objective_names
from hemaml.reproduce.table import read_table, row_plans

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/*.yaml"))
TABLES = sorted((ROOT / "experiments").glob("*/tables/*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*/*.yaml"))


@cache
def plan_of(path: Path):
    """Read once: each file is checked by building the corners of its space."""
    return load_experiment(path)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_reads_and_has_what_a_reader_needs(path):
    plan = plan_of(path)
    assert plan.experiment.task == path.parent.name
    assert plan.experiment.question.endswith("?")
    assert "source" in plan.experiment.paper or not plan.experiment.paper
    figures = {name: value for name, value in plan.experiment.paper.items() if name != "source"}
    assert all(isinstance(value, float) for value in figures.values())


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_names_experiments_and_parameters_that_exist(path):
    found = read_table(path)
    agree = {}
    for row in row_plans(found, found.keys([]), []):
        assert row.plan.experiment.task == path.parents[1].name
        own = plan_of(path.parents[1] / f"{row.row.experiment}.yaml").experiment
        if row.intended.experiment.data == own.data:
            figures = {name: own.paper.get(name) for name in row.row.paper if name in own.paper}
            has_them = figures.items() <= row.row.paper.items()
            agree.setdefault(row.row.experiment, []).append(has_them)
    assert all(any(rows) for rows in agree.values()), "one row has the figures of its experiment"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_is_used(path):
    plans = [plan_of(p) for p in EXPERIMENTS if p.parent.name == path.parent.name]
    assert path.stem in {plan.experiment.space or plan.experiment.name for plan in plans}


def test_every_objective_has_an_experiment_that_begins_with_its_name_and_a_space_of_it():
    for name in objective_names():
        task, _, model = name.partition(".")
        asking = {p.stem for p in EXPERIMENTS if plan_of(p).experiment.objective == name}
        assert any(stem.startswith(model) for stem in asking), name
        assert (ROOT / "search_spaces" / task / f"{model}.yaml").is_file()
