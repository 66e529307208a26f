"""What one run of the command knows from the start: language, format, home. Cheap to import."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from keyong.text import LANGUAGES, Language, language_of_locale, mark, speak

if TYPE_CHECKING:
    from keyong.client import Client

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
CONFIG = "config.toml"

CLICK_SENTENCES = {
    "no-such-option": mark("there is no option {option}"),
    "no-such-option-near": mark("there is no option {option}; did you mean {near}?"),
    "missing": mark("{name} is missing"),
    "bad": mark("{name} does not hold: {why}"),
    "no-such-command": mark("there is no command {command}"),
    "no-such-command-near": mark("there is no command {command}; did you mean {near}?"),
}
"""Sentences of the catalogue for what click refuses."""


CLICK_MESSAGES = {
    r"Option '(?P<option>.+)' requires an argument\.": mark("{option} needs a value"),
    r"Option '(?P<option>.+)' requires (?P<count>\d+) arguments\.": mark("{option} needs {count} values"),
    r"Option '(?P<option>.+)' does not take a value\.": mark("{option} takes no value"),
    r"Got unexpected extra arguments? \((?P<given>.*)\)": mark("more was given than the command takes: {given}"),
}
"""What click says of a whole command line, and our sentence for it."""
CLICK_REASONS = {
    r"'?(?P<value>.*?)'? is not in the range (?P<range>.+)\.": mark("{value} is not in the range {range}"),
    r"'(?P<value>.*)' is not a valid int(eger)?( range)?\.": mark("{value} is not a whole number"),
    r"'(?P<value>.*)' is not a valid float( range)?\.": mark("{value} is not a number"),
    r"'(?P<value>.*)' is not a valid boolean.*": mark("{value} is neither yes nor no"),
    r"'(?P<value>.*)' is not one of (?P<known>.+)\.": mark("{value} is none of {known}"),
    r"\w+ '(?P<value>.*)' does not exist\.": mark("{value} does not exist"),
    r"\w+ '(?P<value>.*)' is a directory\.": mark("{value} is a folder"),
    r"\w+ '(?P<value>.*)' is a file\.": mark("{value} is a file"),
}
"""What click says of a value, and our sentence for it."""


class NoSuchCommandError(click.UsageError):
    """A group has no such command; ``near`` are those with similar names."""

    def __init__(self, command: str, near: Sequence[str], context: click.Context) -> None:
        super().__init__(command, context)
        self.command = command
        self.near = tuple(near)


@dataclass
class State:
    """The run's frame. ``flags`` holds what was given on the command line, for the settings to put above the rest."""

    home: Path
    format: Format
    flags: dict[str, str]
    client: Client | None = None
    """The last link to the coordinator that this run made."""

    @property
    def request(self) -> str:
        """The id under which others logged what this run asked of them; empty where it asked nothing."""
        return self.client.request if self.client is not None and self.client.greeted else ""


_state = State(Path("~/.keyong").expanduser(), "text", {})


def get() -> State:
    """The state of this run."""
    return _state


def prepare(arguments: Sequence[str]) -> None:
    """Settle language, format and home before anything is parsed, so that even a refusal to parse is in the right one.

    Values that are not allowed are refused later, where the options are parsed.
    """
    global _state
    flags = {name: value for name in ("home", "lang", "format") if (value := _given(arguments, name)) is not None}
    if flags.get("format") not in FORMATS:  # a command's own form of output, or nobody's: judged where it is parsed
        flags.pop("format", None)
    home = Path(flags.get("home") or os.environ.get("KEYONG_HOME") or "~/.keyong").expanduser()
    config = _config(home)

    def choose(name: str) -> str:
        return flags.get(name) or os.environ.get(f"KEYONG_{name.upper()}") or str(config.get(name, ""))

    wanted = choose("lang")
    spoken: Language = wanted if wanted in LANGUAGES else language_of_locale()
    speak(spoken)
    _state = State(home, "json" if choose("format") == "json" else "text", flags)


def _given(arguments: Sequence[str], name: str) -> str | None:
    """The last value given to a global option, wherever it stands before ``--``."""
    value = None
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == f"--{name}" and place + 1 < len(arguments):
            value = arguments[place + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def _config(home: Path) -> dict[str, object]:
    try:
        return tomllib.loads((home / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # the settings say what is wrong with it, when a command needs them
