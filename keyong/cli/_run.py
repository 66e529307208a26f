"""One place where everything ends: errors become a sentence, a hint and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from keyong.cli import _state
from keyong.cli._output import as_json, narrate, print_error, print_request
from keyong.text import explain, fill, speaking, translate, translate_data

INTERNAL, USAGE, INTERRUPTED = 1, 2, 130
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
TEMPLATES = _state.CLICK_SENTENCES


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Nothing else reaches the person: no traceback, whatever happens."""
    _open_streams()
    _state.prepare(arguments)
    code = _run(arguments)
    if code not in (0, USAGE, INTERRUPTED):
        print_request()
    return code


def _run(arguments: Sequence[str]) -> int:
    if "_KEYONG_COMPLETE" not in os.environ:
        _utf8_streams()
    from keyong.cli._root import root

    try:
        result = root().main(args=list(arguments), prog_name="keyong", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:
            narrate("interrupted")
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        if error.exit_code == INTERRUPTED:
            narrate("interrupted")
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        if as_json():
            return _usage(click.UsageError("a command is missing", error.ctx))
        print(error.format_message(), file=sys.stderr)  # the page of help: no mistake that has to be called one
        return USAGE
    except click.ClickException as error:
        return _usage(error)
    except (KeyboardInterrupt, click.Abort):
        narrate("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(_mistyped(error, arguments) or error)


def _open_streams() -> None:
    """Give what was closed by whoever started us: else the next file that is opened takes its place, and our output."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def _utf8_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _report(error: Exception) -> int:
    from federation.errors import KeyongError

    if isinstance(error, KeyongError) or _is_sandbox_error(error):
        explained: Any = error
        message, hint = explain(explained)
        print_error(
            str(explained.code), message, hint, explained.exit_code, english=(explained.message, explained.hint)
        )
        return int(explained.exit_code)
    if isinstance(error, ModuleNotFoundError) and (part := _missing_part(error.name or "")):
        from federation.errors import UsageError

        return _report(
            UsageError(
                "this command needs {module}, which is not installed",
                hint="pip install 'keyong[{part}]'",
                code="not-installed",
                module=error.name,
                part=part,
            )
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        from federation.errors import UnavailableError

        return _report(
            UnavailableError(
                "cannot write here: {why}",
                hint="make room on the disk of {home}, or see who may write there",
                code="disk",
                why=f"{error.strerror}{f' ({error.filename})' if error.filename else ''}",
                home=_state.get().home,
            )
        )
    return _internal(error)


def _mistyped(error: Exception, arguments: Sequence[str]) -> Exception | None:
    """The refusal of what stands on the command line: a value that no statement can hold, a path that leads nowhere.

    None for anything else.
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return _led_nowhere(error, arguments)
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return None
    from federation.errors import UsageError

    typed = {*arguments, *(one.partition("=")[2] for one in arguments)}
    for one in error.errors(include_url=False):
        value = one["input"]
        if isinstance(value, str) and value in typed:
            named = "pattern" in one["type"] and one["loc"][-1:] in (("member",), ("id",), ("provider",), ("consumer",))
            return UsageError(
                '"{value}" cannot stand as {standing}',
                hint="write lower-case letters, digits and hyphens, such as mill-a; 57 characters at most"
                if named
                else "write it on one line, neither empty nor longer than 200 characters",
                value=value[:80],
                standing=str(one["loc"][-1]) if named else ".".join(str(part) for part in one["loc"]),
            )
    return None


def _led_nowhere(error: OSError, arguments: Sequence[str]) -> Exception | None:
    """The refusal of a typed path that cannot be opened or written; None where the file was none of the caller's."""
    from federation.errors import UsageError

    if not isinstance(error.filename, str):
        return None
    met = Path(error.filename).absolute()
    for one in (*arguments, *(one.partition("=")[2] for one in arguments)):
        path = _expanded(one)
        # A file is written under another name first, beside the one that was asked for.
        beside = met.parent == path.parent.absolute() and not path.parent.is_dir()
        if not one or (met != path.absolute() and not beside):
            continue
        if not path.parent.is_dir():
            return UsageError("the directory {path} does not exist", hint="check the path", path=path.parent)
        if path.is_dir():
            return UsageError("{path} is a folder", hint="check the path", path=path)
        return UsageError("there is no file {path}", hint="check the path", path=path)
    return None


def _expanded(typed: str) -> Path:
    try:
        return Path(typed).expanduser()
    except RuntimeError:  # ~NAME, and nobody is called so
        return Path(typed)


def _is_sandbox_error(error: Exception) -> bool:
    module = sys.modules.get("sandbox.errors")
    return module is not None and isinstance(error, module.SandboxError)


def _missing_part(module: str) -> str:
    """The extra that brings a module; empty where it is none of ours to name."""
    top = module.partition(".")[0]
    if top in ("grpc", "google", "duckdb", "sqlmodel", "sqlalchemy", "pyarrow", "numpy", "packaging", "alembic"):
        return "node"
    if top == "safetensors":
        return "coordinator"
    return "jobs" if top in ("torch", "flwr", "pandas", "sklearn") else ""


def _internal(error: Exception) -> int:
    where = _write_traceback(error)
    hint = translate("the details are in {path}; please report it", path=where) if where else ""
    english = f"the details are in {where}; please report it" if where else ""
    message = translate("internal error ({kind})", kind=type(error).__name__)
    print_error("internal", message, hint, INTERNAL, english=(f"internal error ({type(error).__name__})", english))
    return INTERNAL


def _write_traceback(error: Exception) -> str:
    """Keep the traceback below the home, for its owner alone; empty where that cannot be done."""
    folder = _state.get().home / "errors"
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.txt"
    try:
        for private in (folder.parent, folder):  # a home made here must be fit to become one
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return str(Path(path))


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    message, places = _sentence(error)
    with speaking("en"):
        english = fill(*_sentence(error))
    hint = ""
    if context is not None:
        hint = translate("see: {command} --help", command=context.command_path)
    print_error(
        "usage",
        fill(translate_data(message), places),
        hint,
        USAGE,
        english=(english, f"see: {context.command_path} --help" if context is not None else ""),
    )
    return USAGE


def _sentence(error: click.ClickException) -> tuple[str, dict[str, object]]:
    """Click's errors as sentences of our catalogue; its own text where it is none of the usual ones."""
    name = _parameter(error)
    if isinstance(error, click.NoSuchOption):
        near = ", ".join(error.possibilities or ())
        key = "no-such-option-near" if near else "no-such-option"
        return TEMPLATES[key], {"option": error.option_name, "near": near}
    if isinstance(error, click.MissingParameter):
        return TEMPLATES["missing"], {"name": name}
    if isinstance(error, click.BadParameter):
        return TEMPLATES["bad"], {"name": name, "why": _why(error.message)}
    if isinstance(error, _state.NoSuchCommandError):
        key = "no-such-command-near" if error.near else "no-such-command"
        return TEMPLATES[key], {"command": error.command, "near": ", ".join(error.near)}
    for wanted, template in _state.CLICK_MESSAGES.items():
        if found := re.fullmatch(wanted, error.format_message()):
            return template, found.groupdict()
    return "{text}", {"text": _lower(error.format_message())}


def _why(message: str) -> str:
    """What click finds wrong with a value, as a sentence of our catalogue; its own text where it is none of the usual."""
    for wanted, template in _state.CLICK_REASONS.items():
        if found := re.fullmatch(wanted, message, re.DOTALL):
            return translate_data(template).format_map(found.groupdict())
    return _lower(message)


def _parameter(error: click.ClickException) -> str:
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if parameter is None:
        return str(getattr(error, "param_hint", "") or "")
    if parameter.param_type_name == "argument":
        return str(parameter.make_metavar(context)) if context is not None else str(parameter.name).upper()
    return " / ".join(parameter.opts)


def _lower(text: str) -> str:
    text = text.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
