"""What the README says exists, and what exists is in the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

import hemaml
from hemaml.cli import app
from hemaml.core.documents import validated
from hemaml.core.experiment import Experiment
from hemaml.core.space import Space

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(typer.main.get_command(app).commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name):
    command = typer.main.get_command(app).commands[name]
    assert command.help
    assert f"`hemaml {name}" in README
    for inner in getattr(command, "commands", {}).values():
        assert inner.help
        assert f"`{inner.name}`" in README or f"{name} {inner.name}" in README


def test_every_command_in_the_readme_exists():
    named = set(re.findall(r"hemaml ([a-z]+)", README)) - {"ui"}
    assert named <= set(COMMANDS), named - set(COMMANDS)


def test_the_yaml_in_the_readme_is_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.S)
    experiment, space, of_classes, gates, figures = blocks
    validated(Experiment, {"name": "ours"} | yaml.safe_load(of_classes), "README")
    document = {"name": "mine"} | yaml.safe_load(experiment)
    for addition in (gates, figures):
        validated(Experiment, document | yaml.safe_load(addition), "README")
    validated(Space, yaml.safe_load(space), "README")


def test_the_python_names_in_the_readme_exist():
    for name in set(re.findall(r"hemaml\.([a-z_]+)\(", README)) | set(hemaml.__all__):
        assert callable(getattr(hemaml, name))
        assert f"`{name}`" in README or f"hemaml.{name}" in README, name


def test_public_names_survive_the_import_of_their_modules():
    code = (
        "import hemaml, hemaml.sweep, hemaml.run, hemaml.evaluate\n"
        "assert all(callable(getattr(hemaml, n)) for n in hemaml.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_that_the_readme_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
