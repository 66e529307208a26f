"""The translation catalogue: whole, current, and with the same places in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyong.text import extract, language_of_locale, speaking, translate


def test_every_sentence_is_translated_and_the_compiled_catalogue_is_current() -> None:
    assert extract.problems() == []


def test_the_check_notices_what_is_missing_other_or_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "keyong" / "one.py"
    source.parent.mkdir()
    source.write_text('raise UsageError("there is no {thing}", hint="look for {thing}")\n', encoding="utf-8")
    monkeypatch.setattr(extract, "PO", tmp_path / "k.po")
    monkeypatch.setattr(extract, "MO", tmp_path / "k.mo")
    extract.update(tmp_path, {"there is no {thing}": "没有 {thing}"})
    assert extract.problems(tmp_path) == ["no translation: 'look for {thing}' (keyong/one.py:1)"]
    extract.update(tmp_path, {"look for {thing}": "请寻找 {things}"})
    assert extract.problems(tmp_path) == ["other places in the translation: 'look for {thing}'"]
    extract.update(tmp_path, {"look for {thing}": "请寻找 {thing}"})
    assert extract.problems(tmp_path) == []
    (tmp_path / "k.mo").write_bytes(b"old")
    assert extract.problems(tmp_path) == ["k.mo is stale: run python -m keyong.text.extract"]
    source.write_text("", encoding="utf-8")
    assert "no longer said: 'there is no {thing}'" in extract.problems(tmp_path)


def test_sentences_of_errors_help_and_narration_are_found() -> None:
    source = '''
raise DeniedError("denied {x}", hint="ask " "again")
raise ValueError("not ours")
raise errors.LedgerError(template)
narrate("said {a}")
table(("one", "two"), rows)
facts((("name", value), ("other", 1)))
x: Annotated[str, typer.Option("--x", help="what x is")]
@app.command()
def f():
    """What it does.

    More of
    it.

    $ keyong f
    """
'''
    found = {text for text, _ in extract.in_source(source, command=True)}
    assert found == {
        "denied {x}", "ask again", "said {a}", "one", "two", "name", "other", "what x is", "What it does.",
        "More of it.",
    }  # fmt: skip


def test_sentences_chosen_between_and_handed_on_are_found() -> None:
    source = """
narrate("one" if many else "two" if few else "three")
table(["left", heading], rows)
def _tell(member, sentence, *, count=0):
    narrate(sentence, member=member)
_tell("mill-a", "told {member}")
_tell("mill-a", sentence="told {member} again")
class Stream:
    def _refuse(self, template):
        raise ReplyFormatError(template)
    def add(self):
        self._refuse("too long")
"""
    found = {text for text, _ in extract.in_source(source, command=True)}
    assert found == {"one", "two", "three", "left", "told {member}", "told {member} again", "too long"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_TW", "LANG": "C"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_chooses_the_language(environment: dict[str, str], expected: str) -> None:
    assert language_of_locale(environment) == expected


def test_values_that_look_like_places_are_left_alone() -> None:
    with speaking("zh"):
        assert translate("error: {message}", message="{boom}") == "错误：{boom}"
