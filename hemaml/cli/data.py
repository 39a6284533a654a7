"""`hemaml data`: look at data sets, import and verify them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hemaml.cli.arguments import Sets
from hemaml.cli.show import print_table
from hemaml.core.errors import ConfigError, DataError, StoreError

app = typer.Typer(help="Look at data sets, import and verify them.", no_args_is_help=True)


@app.command("list")
def data_list() -> None:
    """Readers, the keys of their data section, and the data sets of the experiments."""
    from hemaml.data.reading import load_reader, reader_names

    rows = []
    for name in reader_names():
        fields = load_reader(name).spec.model_fields.items()
        rows += [
            [name if i == 0 else "", key, repr(f.default) if not f.is_required() else "required",
             f.description or ""]
            for i, (key, f) in enumerate(fields)
        ]  # fmt: skip
    print_table(["reader", "key", "default", "meaning"], rows)


@app.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help="A folder, a zip file or a URL.")],
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    checksum: Annotated[str | None, typer.Option(help="sha256 of the archive.")] = None,
) -> None:
    """Copy a data set from a folder, a zip or a URL; whole or not at all."""
    from hemaml.data.importing import import_dataset

    print(import_dataset(source, target, checksum=checksum, progress=sys.stderr.isatty()))


@app.command("verify")
def data_verify(
    what: Annotated[str, typer.Argument(help="An experiment file or a reader.")],
    set_: Sets = None,
) -> None:
    """Name every bad file of a data set."""
    from hemaml.data.reading import verify_dataset

    section = data_section(what, set_ or [])
    problems = verify_dataset(section)
    if problems:
        rows = [[p.severity, str(p.file), p.rule, p.found] for p in problems]
        print_table(["severity", "file", "rule", "found"], rows)
    if any(problem.severity == "error" for problem in problems):
        raise DataError(f"{sum(p.severity == 'error' for p in problems)} files break a rule.")
    print(f"{section['reader']}: no errors, {len(problems)} warnings")


@app.command("show")
def data_show(
    what: Annotated[str, typer.Argument(help="An experiment file or a reader.")],
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) there.")] = None,
) -> None:
    """Counts, sizes and identity of a data set, with a contact sheet if asked for."""
    from hemaml.data.reading import read_dataset
    from hemaml.explain.contact_sheet import contact_sheet, facts

    data = read_dataset(data_section(what, set_ or []))
    print_table(["fact", "value"], [[name, value] for name, value in facts(data).items()])
    if out is not None:
        sheet = contact_sheet(data)
        try:
            out.write_bytes(sheet)
        except OSError as error:
            raise StoreError(
                f"a contact sheet must be writable, but {out} gave: {error}. Name another file."
            ) from error
        print(out)


def data_section(what: str, overrides: list[str]) -> dict[str, Any]:
    """The `data:` section of an experiment file, or of a reader alone, with `--set` applied."""
    from hemaml.core.documents import override, read_yaml

    is_file = what.endswith((".yaml", ".yml"))
    section = read_yaml(Path(what)).get("data") if is_file else {"reader": what}
    if not isinstance(section, dict):
        raise ConfigError(f"{what} must have a `data:` section, but it has {section!r} there.")
    for assignment in overrides:
        section = override(section, assignment.removeprefix("data."))
    return section
