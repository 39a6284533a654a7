"""`python -m hemaml.cli`."""

from hemaml.cli import main

main()
