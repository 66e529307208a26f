"""The Chinese pages say what the English ones say: section by section the same code, tables, lists, links and figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ENGLISH_ALONE = {"benchmarks.md", "data-model.md"}
"""Pages for those who work on the code; the records in docs/decisions are not asked for either."""
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
PAGES = [ROOT / "README.md", *EXAMPLES, *sorted(path for path in DOCS.glob("*.md") if path.name not in ENGLISH_ALONE)]
CHINESE = [ROOT / "README.zh.md", *(page.with_name("README.zh.md") for page in EXAMPLES)]
CHINESE += sorted((DOCS / "zh").glob("*.md"))
MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass
class Section:
    """What of a section has to be the same in both languages."""

    heading: str
    level: int
    blocks: list[str] = field(default_factory=list)
    tables: list[list[int]] = field(default_factory=list)
    """Of each table, of each row, how many cells."""
    items: int = 0
    paragraphs: int = 0
    links: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    figures: set[str] = field(default_factory=set)


def chinese_of(page: Path) -> Path:
    """Where an English page's translation lies, whether there is one or not."""
    return page.with_name("README.zh.md") if page.name == "README.md" else page.parent / "zh" / page.name


def english_of(page: Path) -> Path:
    """The English page of a Chinese one; any other file is its own."""
    if page.name == "README.zh.md":
        return page.with_name("README.md")
    return DOCS / page.name if page.parent == DOCS / "zh" else page


def block_of(token: Token) -> str:
    """A block's text without its comments; of a drawing (a fence of no language) the number of its lines."""
    if token.type == "fence" and not token.info:
        return f"a drawing of {token.content.count(chr(10))} lines"
    return re.sub(r"(^|\s+)#.*$", "", token.content, flags=re.MULTILINE)


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(page: Path) -> list[str]:
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    return [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]


def target_of(page: Path, link: str) -> str:
    """Where a link leads, told the same way from both languages: the English file, and the number of the heading."""
    if re.match(r"[a-z]+:", link):
        return link
    path, _, anchor = unquote(link).partition("#")
    file = (page.parent / path).resolve() if path else page
    name = str(english_of(file).relative_to(ROOT))
    if not anchor:
        return name
    anchors = [anchor_of(heading) for heading in headings(file)]
    return f"{name}, heading {anchors.index(anchor)}" if anchor in anchors else f"{name}, no heading {anchor}"


def sections(page: Path) -> list[Section]:
    """A page cut at its headings; what stands before the first is a section without a name."""
    found = [Section("(before the first heading)", 0)]
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    for at, token in enumerate(tokens):
        here = found[-1]
        if token.type == "heading_open":
            found.append(Section(tokens[at + 1].content, int(token.tag[1])))
        elif token.type in ("fence", "code_block"):
            here.blocks.append(block_of(token))
        elif token.type == "table_open":
            here.tables.append([])
        elif token.type == "tr_open":
            here.tables[-1].append(0)
        elif token.type in ("th_open", "td_open"):
            here.tables[-1][-1] += 1
        elif token.type == "list_item_open":
            here.items += 1
        elif token.type == "paragraph_open":
            here.paragraphs += 1
        elif token.type == "inline":
            read_inline(page, token, here)
    return found


def read_inline(page: Path, token: Token, here: Section) -> None:
    for child in token.children or []:
        if child.type == "link_open":
            here.links.add(target_of(page, str(child.attrs["href"])))
        elif child.type == "code_inline" and re.fullmatch(r"[!-~…]+", child.content):
            here.names.add(child.content)
        elif child.type == "text":
            here.figures |= set(re.findall(r"\d+(?:\.\d+)*", re.sub(r"(?<=\d),(?=\d{3})", "", child.content)))
    # The other language's page, named under the first heading or before it.
    here.links -= {name_of(english_of(page))} if here.level < 2 else set()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def differences(english: Path, chinese: Path) -> Iterator[str]:
    """What a translation lacks or has besides, a sentence for each section and kind."""
    ours, theirs = sections(english), sections(chinese)
    for at in range(max(len(ours), len(theirs))):
        pair = [of[at] if at < len(of) else None for of in (ours, theirs)]
        if None in pair or ours[at].level != theirs[at].level:
            words = ["nothing" if one is None else f"“{one.heading}” (level {one.level})" for one in pair]
            yield f"heading {at} is {words[0]}, translated {words[1]}"
            return
    for one, other in zip(ours, theirs, strict=True):
        where = f"section “{one.heading}” (“{other.heading}”)"
        for kind in ("blocks", "tables", "items", "links", "names"):
            mine, its = getattr(one, kind), getattr(other, kind)
            if mine != its:
                yield f"{where}: {kind} differ: {told(mine, its)}"
        # A translation may explain the English within a formula in a paragraph of its own; it may leave none out.
        if one.paragraphs > other.paragraphs:
            yield f"{where}: {one.paragraphs} paragraphs, translated {other.paragraphs}"
        if one.figures - other.figures:
            yield f"{where}: figures that the translation lacks: {sorted(one.figures - other.figures)}"


def told(mine: Any, its: Any) -> str:
    """What is in one alone, in few words."""
    if isinstance(mine, set):
        return f"missing {sorted(mine - its)}, not in the English page {sorted(its - mine)}"
    if isinstance(mine, list) and isinstance((*mine, *its)[0], list):
        return f"rows of the tables {[len(one) for one in mine]}, translated {[len(one) for one in its]}"
    if isinstance(mine, list) and len(mine) == len(its):
        return "; ".join(f"{a!r} became {b!r}" for a, b in zip(mine, its, strict=True) if a != b)
    return f"{mine!r} became {its!r}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_says_the_same_in_chinese(page: Path) -> None:
    chinese = chinese_of(page)
    assert chinese.exists(), f"{name_of(page)} has no {name_of(chinese)}"
    found = list(differences(page, chinese))
    assert not found, f"{name_of(chinese)} lags behind {name_of(page)}:\n" + "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_each_other_at_their_beginning(page: Path) -> None:
    chinese = chinese_of(page)
    for one, other in ((page, chinese), (chinese, page)):
        begins = one.read_text(encoding="utf-8").split("\n## ")[0]
        targets = re.findall(r"\]\(([^)#\s]+)\)", begins)
        assert other in {(one.parent / target).resolve() for target in targets}, (
            f"{name_of(one)} names {name_of(other)}"
        )


@pytest.mark.parametrize("page", CHINESE, ids=name_of)
def test_a_chinese_page_has_an_english_one_and_links_to_chinese_ones(page: Path) -> None:
    english = english_of(page)
    assert english.exists(), f"{name_of(page)} translates nothing"
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        for child in token.children or []:
            if child.type == "link_open" and not re.match(r"[a-z]+:|#", str(child.attrs["href"])):
                file = (page.parent / unquote(str(child.attrs["href"])).partition("#")[0]).resolve()
                there = file != english and file != chinese_of(file) and chinese_of(file).exists()
                assert not (there and file in PAGES), f"{name_of(page)}: {child.attrs['href']} is to be had in Chinese"


PAGE = """# Keys

Read the [other](other.md) at 40 s.

And more.

## What `rotate` does

    keyong keys rotate        # exchanges all

| key | ends |
|---|---|
| tls | `keys-kept` |

- One.
"""


@pytest.mark.parametrize(
    ("of", "becomes", "told"),
    [
        ("40 s", "41 s", "section “Keys”.*figures.*40"),
        ("[other](other.md)", "other", "section “Keys”.*links"),
        ("## What", "### What", "heading 2"),
        ("rotate        #", "list        #", "What `rotate` does.*blocks"),
        ("| tls | `keys-kept` |\n", "", "What `rotate` does.*tables"),
        ("keys-kept", "keys-held", "What `rotate` does.*names"),
        ("And more.\n", "", "section “Keys”.*2 paragraphs, translated 1"),
        ("- One.", "One.", "What `rotate` does.*items"),
    ],
)
def test_what_lags_behind_is_found_and_named(
    of: str, becomes: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.test_translations.ROOT", tmp_path)
    english, chinese = tmp_path / "page.md", tmp_path / "translated.md"
    english.write_text(PAGE)
    chinese.write_text(PAGE.replace("exchanges all", "更换全部"))
    assert list(differences(english, chinese)) == []
    chinese.write_text(PAGE.replace(of, becomes))
    assert re.search(told, "\n".join(differences(english, chinese)))
