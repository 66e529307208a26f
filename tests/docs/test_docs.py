"""The pages say what is there: commands parse, files exist, links lead somewhere, listings are the files they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from keyong.cli._root import root

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("README*.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README*.md")),
]
GLOBALS = ("--home", "--lang", "--format")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
TOP = ("coordinator/", "docs/", "enterprise_node/", "examples/", "federation/", "keyong/", "sandbox/", "tests/")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each ``keyong ...`` of a page, and whether it stands on a line of its own and so must be whole."""
    # Listings of files may hold comments that name commands; they are compared with the files instead.
    text = re.sub(r"^```(python|toml).*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if re.match(r"(    |\$ )\s*(\$ )?keyong ", line):
            for part in re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ ")).split("&&"):
                yield part.strip(), True
    for inline in re.findall(r"`([^`\n]+)`", text):
        if inline.startswith("keyong ") and "..." not in inline and "…" not in inline:
            yield inline, False


def check_command(line: str, *, whole: bool) -> None:
    """Raise unless the line names a command that exists, with options that it takes (and, where whole, parses)."""
    tokens = shlex.split(line)[1:]
    command: click.Command = root()
    context = click.Context(command, info_name="keyong")
    while isinstance(command, click.Group):
        while tokens and tokens[0].startswith("--"):
            option = tokens.pop(0)
            if option not in GLOBALS:
                assert option in {name for parameter in command.params for name in parameter.opts} | {
                    "--help",
                    "--version",
                }, option
                continue
            tokens.pop(0)
        if not tokens:
            assert not whole or line.endswith(("--help", "--version")), f"{line}: names a group alone"
            return
        name = tokens.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{line}: there is no {name}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for token in tokens:
        if token.startswith("-"):
            assert token.partition("=")[0] in known | {*GLOBALS, "--help"}, f"{line}: there is no option {token}"
    if whole and "--help" not in tokens:
        command.make_context(command.name or "", list(tokens))


COMMANDS = sorted(
    {(name_of(page), line, whole) for page in PAGES for line, whole in command_lines(page.read_text(encoding="utf-8"))}
)


@pytest.mark.parametrize(("page", "line", "whole"), COMMANDS)
def test_a_command_on_a_page_parses(page: str, line: str, whole: bool) -> None:
    check_command(line, whole=whole)


def test_the_walk_is_among_them() -> None:
    lines = [line for page, line, whole in COMMANDS if page == "README.md" and whole]
    wanted = (
        "init",
        "invite",
        "join",
        "dataset add",
        "node serve",
        "offer",
        "sign",
        "check",
        "run",
        "result",
        "verify",
    )
    assert [one for one in wanted if not any(f" {one}" in line for line in lines)] == []


@pytest.mark.parametrize(
    "line",
    [
        "keyong jobs run app",
        "keyong job start app",
        "keyong job run app --purpose p --colour red",
        "keyong job run app",  # the purpose is missing
        "keyong job result abc",
        "keyong node",
    ],
)
def test_a_line_that_does_not_hold_is_found(line: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        check_command(line, whole=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_named_exist(page: Path) -> None:
    for inline in re.findall(r"`([^`\s]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if inline.startswith(TOP) and not any(mark in inline for mark in "*<…\\"):
            assert (ROOT / inline).exists() or (page.parent / inline).exists(), f"{name_of(page)} names {inline}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, f"{name_of(page)} links to {target}"


def anchor_of(heading: str) -> str:
    """The anchor that is made of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_tests_named_exist() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    for file, name in re.findall(r"`(tests/\S+\.py)` \(`(test_\w+)[`.]", page):
        assert name in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {name}"


def test_every_invariant_has_its_row() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (inv\d) ", page, re.MULTILINE) == [f"inv{number}" for number in range(1, 9)]


@pytest.mark.parametrize("file", ["pyproject.toml", "powerline/client_app.py", "powerline/server_app.py"])
def test_the_readme_shows_the_minimal_app_whole(file: str) -> None:
    listing = (ROOT / "examples" / "minimal" / "app" / file).read_text(encoding="utf-8").rstrip()
    for page in ("README.md", "README.zh.md"):
        assert listing in (ROOT / page).read_text(encoding="utf-8")


def test_every_setting_has_its_row() -> None:
    from keyong.cli.settings import Settings

    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if name != "home" and f"`KEYONG_{name.upper()}`" not in page] == []
