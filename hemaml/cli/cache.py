"""`hemaml cache`: inspect and clear the cache."""

import typer

from hemaml.cli.show import print_table

app = typer.Typer(help="Inspect and clear the cache.", no_args_is_help=True)


@app.command("show")
def cache_show() -> None:
    """Entries and bytes by operation."""
    from hemaml.core import settings
    from hemaml.core.cache import Cache

    use = Cache(settings.cache_root()).use()
    rows = [[u.operation, str(u.entries), f"{u.size / 1e6:.1f}"] for u in use]
    print_table(["operation", "entries", "MB"], rows)
    print(settings.cache_root())


@app.command("clear")
def cache_clear() -> None:
    """Remove every entry; what is needed is computed again."""
    from hemaml.core import settings
    from hemaml.core.cache import Cache

    print(f"{Cache(settings.cache_root()).clear() / 1e6:.1f} MB freed")
