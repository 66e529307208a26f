"""The catalogue's upkeep: which sentences the code holds, which are translated, and the files they are kept in.

``python -m keyong.text.extract`` brings ``keyong.po`` up to date (new sentences untranslated, gone ones out), compiles
``keyong.mo`` and names what is missing; with ``--check`` it only looks, and fails where anything is not as it should
be.

A sentence of the catalogue is a string literal that is

* the first argument of, or ``hint=`` in, a call of a class whose name ends in ``Error`` or ``Notice``;
* where a function hands one of its parameters on as such a sentence, what its module calls it with;
* in ``keyong/``, the first argument of ``_``, ``mark``, ``translate``, ``narrate``, ``say``, ``ask``,
  ``confirmed`` or ``question``, or the second of ``report``;
* in ``keyong/**/templates``, the argument of ``_`` in a page's template;
* in ``keyong/`` too, a heading of ``table``, a name in ``facts``, the title of ``_section``, ``help=`` of an option, and each
  paragraph of a command's or group's text that is not an example.
"""

from __future__ import annotations

import ast
import builtins
import string
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGES = ("federation", "sandbox", "enterprise_node", "coordinator", "keyong")
LEFT_OUT = ("federation/jobs/", "sandbox/inside/")
"""Run inside a session, where nothing of the catalogue is."""
FIRST = {"_", "mark", "translate", "translate_data", "narrate", "say", "ask", "confirmed", "question"}
SECOND = {"report"}
PO = Path(__file__).parent / "zh" / "LC_MESSAGES" / "keyong.po"
MO = PO.with_suffix(".mo")

Sentences = dict[str, list[str]]
"""Each sentence with the places it stands at."""


def sentences(project: Path = PROJECT) -> Sentences:
    """Every sentence of the catalogue that the code holds."""
    found: Sentences = {}
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*.py")):
            place = path.relative_to(project).as_posix()
            if place.startswith(LEFT_OUT) or "_generated" in place:
                continue
            for text, line in in_source(path.read_text(encoding="utf-8"), command=package == "keyong"):
                found.setdefault(text, []).append(f"{place}:{line}")
    for path in sorted((project / "keyong").rglob("templates/*.html")):
        for text, line in in_template(path.read_text(encoding="utf-8")):
            found.setdefault(text, []).append(f"{path.relative_to(project).as_posix()}:{line}")
    return found


def in_template(source: str) -> Iterator[tuple[str, int]]:
    """The sentences in one page's template, with their lines."""
    from jinja2 import Environment

    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    for line, _, text in environment.extract_translations(source, ["_"]):  # type: ignore[attr-defined]
        sentence = text[0] if isinstance(text, tuple) else text
        if isinstance(sentence, str):
            yield sentence, line


def in_source(source: str, *, command: bool = False) -> Iterator[tuple[str, int]]:
    """The sentences in one file's source, with their lines; ``command`` reads it as a part of the command line."""
    tree = ast.parse(source)
    handed_on = _handed_on(tree, command)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for given in (*_in_call(node, command), *_given(node, handed_on.get(_name(node), {}))):
                for literal in _chosen(given):
                    if text := _text(literal):
                        yield text, literal.lineno
        elif command and isinstance(node, ast.FunctionDef) and _is_command(node, tree):
            for paragraph in _prose(ast.get_docstring(node) or ""):
                yield paragraph, node.lineno
        elif (
            command
            and isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "SUMMARY"
        ):
            for paragraph in _prose(_text(node.value)):
                yield paragraph, node.lineno


def _handed_on(tree: ast.Module, command: bool) -> dict[str, dict[str, int]]:
    """The functions of a module that take sentences for others: which parameters, and where a call has them."""
    found: dict[str, dict[str, int]] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
        names = names[1:] if names[:1] in (["self"], ["cls"]) else names
        for call in ast.walk(function):
            if isinstance(call, ast.Call):
                for given in _in_call(call, command):
                    if isinstance(given, ast.Name) and given.id in names:
                        found.setdefault(function.name, {})[given.id] = names.index(given.id)
    return found


def _given(call: ast.Call, wanted: dict[str, int]) -> Iterator[ast.expr]:
    """What a call gives for these parameters."""
    for name, place in wanted.items():
        yield from call.args[place : place + 1]
        yield from (keyword.value for keyword in call.keywords if keyword.arg == name)


def _name(call: ast.Call) -> str:
    """The last part of what is called."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _in_call(node: ast.Call, command: bool) -> Iterator[ast.expr]:
    name = _name(node)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name.endswith(("Error", "Notice")) and not hasattr(builtins, name):  # Python's own errors reach no person
        yield from node.args[:1]
        if "hint" in keywords:
            yield keywords["hint"]
    if name == "Layer":
        yield from (*node.args, *(keywords[one] for one in ("fix",) if one in keywords))
    if not command:
        return
    if name in FIRST:
        yield from node.args[:1]
    elif name in SECOND:
        yield from node.args[1:2]
    elif name == "table" and node.args and isinstance(node.args[0], ast.Tuple | ast.List):
        yield from node.args[0].elts
    elif name == "facts" and node.args and isinstance(node.args[0], ast.Tuple):
        yield from (pair.elts[0] for pair in node.args[0].elts if isinstance(pair, ast.Tuple) and pair.elts)
    elif name in ("_section", "Finding", "Commands"):
        yield from node.args[:1]
    elif name in ("Option", "Argument", "Typer", "version_option") and "help" in keywords:
        yield keywords["help"]


def _chosen(node: ast.expr) -> Iterator[ast.expr]:
    """The expression itself, or each of those that it chooses between."""
    if isinstance(node, ast.IfExp):
        yield from (*_chosen(node.body), *_chosen(node.orelse))
    else:
        yield node


def _text(node: ast.expr) -> str:
    """A string literal's value; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _is_command(node: ast.FunctionDef, tree: ast.Module) -> bool:
    """Whether a function is registered as a command, by decorator or by a call in any module."""
    decorated = any(
        "command" in ast.unparse(decorator) or "callback" in ast.unparse(decorator) for decorator in node.decorator_list
    )
    return decorated or any("$ keyong" in paragraph for paragraph in (ast.get_docstring(node) or "").split("\n\n"))


def _prose(docstring: str) -> list[str]:
    from keyong.cli._commands import paragraphs

    return [part for part in paragraphs(docstring) if not part.startswith("$")]


def places(sentence: str) -> set[str]:
    """The names of a sentence's places."""
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def problems(project: Path = PROJECT) -> list[str]:
    """What is wrong with the catalogue: missing, left over, other places, or a stale compiled file."""
    catalogue = _read()
    found = sentences(project)
    wrong = [f"no translation: {text!r} ({found[text][0]})" for text in found if not catalogue.get(text)]
    wrong += [f"no longer said: {text!r}" for text in catalogue if text not in found]
    for text, translated in catalogue.items():
        if translated and places(text) != places(translated):
            wrong.append(f"other places in the translation: {text!r}")
    if not MO.is_file() or MO.read_bytes() != compiled():
        wrong.append(f"{MO.name} is stale: run python -m keyong.text.extract")
    return wrong


def _read() -> dict[str, str]:
    from babel.messages.pofile import read_po

    if not PO.is_file():
        return {}
    with PO.open("rb") as file:
        return {str(message.id): str(message.string or "") for message in read_po(file) if message.id}


def compiled() -> bytes:
    """The compiled form of the catalogue file, untranslated sentences left out."""
    import io

    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    out = io.BytesIO()
    with PO.open("rb") as file:
        write_mo(out, read_po(file))
    return out.getvalue()


def update(project: Path = PROJECT, translations: dict[str, str] | None = None) -> None:
    """Bring the catalogue file up to date and compile it; ``translations`` are added where they fit a sentence."""
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import write_po

    known = {**_read(), **(translations or {})}
    catalogue = Catalog(
        locale="zh", project="keyong", version="1", fuzzy=False, header_comment="# Chinese texts of keyong."
    )
    # Fixed, so that the file changes with its sentences alone.
    catalogue.revision_date = catalogue.creation_date = datetime(2026, 1, 1, tzinfo=UTC)
    for text, where in sorted(sentences(project).items()):
        catalogue.add(
            text, known.get(text, ""), locations=[(one.rpartition(":")[0], 0) for one in dict.fromkeys(where)]
        )
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        write_po(file, catalogue, width=120, omit_header=False, include_lineno=False)
    MO.write_bytes(compiled())


def main() -> None:
    """See the module's text."""
    if "--check" not in sys.argv[1:]:
        update()
    wrong = problems()
    for one in wrong:
        print(one)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
