"""Commands whose help is read: translated, laid out by display width, with examples and the global options last.

A docstring is the help: its paragraphs are sentences of the catalogue, paragraphs that begin with ``$`` are examples.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click
import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from keyong.cli import _state
from keyong.cli._output import width
from keyong.text import LANGUAGES, translate, translate_data

F = TypeVar("F", bound=Callable[..., Any])
WIDEST = 100
GLOBALS = ("home", "lang", "format")


class Commands(typer.Typer):
    """A group of commands in the style of this command line; use it like ``typer.Typer``."""

    def __init__(self, help: str = "", **options: Any) -> None:
        super().__init__(
            cls=Group,
            help=help,
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Register a command; its docstring is its help."""
        return super().command(name, cls=Command, **options)


def build(app: typer.Typer) -> click.Command:
    """The click command of a group; single commands stay single."""
    command: click.Command = typer.main.get_command(app)
    return command


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, each on one line, examples kept line by line."""
    parts = inspect.cleandoc(text).split("\n\n")
    return [part if part.startswith("$") else " ".join(part.split()) for part in parts if part.strip()]


def global_options() -> list[click.Option]:
    """The options that every command takes, wherever they stand."""
    return [
        click.Option(
            ["--home"],
            type=click.Path(path_type=Path, file_okay=False),
            metavar="FOLDER",
            expose_value=False,
            help="The identity to act as (KEYONG_HOME; default ~/.keyong).",
        ),
        click.Option(
            ["--lang"],
            type=click.Choice(LANGUAGES),
            metavar="en|zh",
            expose_value=False,
            help="Language of what people read (KEYONG_LANG, or the locale).",
        ),
        click.Option(
            ["--format"],
            type=click.Choice(_state.FORMATS),
            metavar="text|json",
            expose_value=False,
            help="Form of the data on stdout (KEYONG_FORMAT).",
        ),
    ]


class _Helpful(click.Command):
    """Help in the project's own layout."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        named = {parameter.name for parameter in own}
        return own + [option for option in global_options() if option.name not in named]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(render(self, ctx))


class Command(_Helpful, TyperCommand):
    """One command."""


class Group(_Helpful, TyperGroup):
    """A group that names the nearest command when it does not have one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise _state.NoSuchCommandError(name, get_close_matches(name, self.list_commands(ctx), 3), ctx)
        return super().resolve_command(ctx, args)

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each command with its first sentence."""
        found = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                found.append((name, (paragraphs(command.help or "") or [""])[0]))
        return found


def render(command: click.Command, ctx: click.Context) -> str:
    """A command's help page."""
    columns = int(os.environ.get("COLUMNS", "0") or 0) or shutil.get_terminal_size((WIDEST, 24)).columns
    wide = max(50, min(columns, WIDEST))
    parts = paragraphs(command.help or "")
    usage = " ".join([ctx.command_path, *_pieces(command, ctx)])
    lines = [translate("Usage: {usage}", usage=usage), ""]
    for part in (part for part in parts if not part.startswith("$")):
        lines += [*wrap(translate_data(part), wide - 2, "  "), ""]
    if isinstance(command, Group):
        lines += _section("Commands", [(name, translate_data(text)) for name, text in command.summaries(ctx)], wide)
    ours, globals_ = _options(command, ctx)
    arguments = [
        _argument(command, parameter, ctx)
        for parameter in command.get_params(ctx)
        if parameter.param_type_name == "argument"
    ]
    lines += _section("Arguments", arguments, wide)
    lines += _section("Options", ours, wide)
    if examples := [part for part in parts if part.startswith("$")]:
        lines += [translate("Examples:"), *(f"  {row}" for part in examples for row in part.splitlines()), ""]
    lines += _section("Everywhere", globals_, wide)
    return "\n".join(lines).rstrip() + "\n"


def _pieces(command: click.Command, ctx: click.Context) -> list[str]:
    pieces = []
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            pieces.append(parameter.make_metavar(ctx))
        elif parameter.required:
            pieces.append(f"{parameter.opts[0]} {parameter.make_metavar(ctx)}")
    pieces.append(translate("[options]"))
    return [*pieces, translate("COMMAND")] if isinstance(command, Group) else pieces


def _argument(command: click.Command, parameter: click.Parameter, ctx: click.Context) -> tuple[str, str]:
    return parameter.make_metavar(ctx), translate_data(
        getattr(parameter, "help", None) or _declared_help(command, parameter)
    )


def _declared_help(command: click.Command, parameter: click.Parameter) -> str:
    """The help of an argument as it was written: with click 8.5, typer's own copy of it is lost."""
    if command.callback is None:
        return ""
    found = inspect.signature(inspect.unwrap(command.callback), eval_str=True).parameters.get(str(parameter.name))
    for part in getattr(found.annotation, "__metadata__", ()) if found is not None else ():
        if isinstance(part, ArgumentInfo):
            return part.help or ""
    return ""


def _options(command: click.Command, ctx: click.Context) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    ours: list[tuple[str, str]] = []
    everywhere: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        names = ", ".join(sorted(parameter.opts, key=len))
        if parameter.secondary_opts:
            names += " / " + ", ".join(parameter.secondary_opts)
        if not parameter.is_flag and not parameter.count:
            names += f" {parameter.make_metavar(ctx)}"
        text = translate_data(parameter.help or "")
        if parameter.required:
            text = translate("{text} Required.", text=text)
        elif (default := _default(parameter)) is not None:
            text = translate("{text} Default: {default}.", text=text, default=default)
        helping = "--help" in parameter.opts
        if helping:
            text = translate("Show this page.")
        (everywhere if helping or parameter.name in GLOBALS else ours).append((names, text))
    return ours, everywhere


def _default(option: click.Option) -> str | None:
    value = option.default
    if not getattr(option, "show_default", False) or option.is_flag or value in (None, "", (), []) or callable(value):
        return None
    if isinstance(value, list | tuple):
        return ", ".join(str(getattr(item, "value", item)) for item in value)
    return str(getattr(value, "value", value)) if isinstance(value, str | int | float) else None


def _section(title: str, rows: list[tuple[str, str]], wide: int) -> list[str]:
    if not rows:
        return []
    column = min(max(width(name) for name, _ in rows), 30) + 4
    lines = [translate("{title}:", title=translate_data(title))]
    for name, text in rows:
        wrapped = wrap(text, wide - column, "") or [""]
        head = "  " + name
        if width(head) > column - 2:
            lines += [head, *(" " * column + row for row in wrapped)]
            continue
        lines.append((head + " " * (column - width(head)) + wrapped[0]).rstrip())
        lines += [" " * column + row for row in wrapped[1:]]
    return [*lines, ""]


def wrap(text: str, wide: int, indent: str) -> list[str]:
    """Break a text into lines of at most ``wide`` cells: between words, and between any two Chinese characters."""
    rows: list[str] = []
    row = ""
    for piece in _breakable(text):
        if row and width(row + piece.rstrip()) > wide:
            rows.append(row.rstrip())
            row = ""
        row += piece.lstrip() if not row else piece
    if row.strip():
        rows.append(row.rstrip())
    return [indent + row for row in rows]


_NO_START = "，。；：！？、）》」”’…"
"""Never first on a line."""


def _breakable(text: str) -> list[str]:
    pieces: list[str] = []
    glued = False
    for character in text:
        wide = width(character) == 2
        if pieces and (character in _NO_START or (not wide and not glued)):
            pieces[-1] += character
        else:
            pieces.append(character)
        glued = character == " " or (wide and character not in "（《「“")
    return pieces
