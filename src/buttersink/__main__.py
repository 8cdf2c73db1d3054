"""`python -m buttersink` is the command."""

from buttersink.cli import command

command()
