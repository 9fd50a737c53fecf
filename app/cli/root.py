"""The command line before the command."""

from typing import Any

from typer.core import TyperGroup

FLAGS = ("--json",)
VALUED = ("--url", "--key")


class Root(TyperGroup):
    """Accepts the options that most commands share before the command, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, moved(args))


def moved(args: list[str]) -> list[str]:
    """Return the arguments with shared options that stand before the command moved behind it, where it reads them."""
    leading: list[str] = []
    rest = list(args)
    while rest and rest[0].partition("=")[0] in (*FLAGS, *VALUED):
        takes = 2 if rest[0] in VALUED else 1
        leading, rest = leading + rest[:takes], rest[takes:]
    end = rest.index("--") if "--" in rest else len(rest)
    return rest[:end] + leading + rest[end:] if rest else leading
