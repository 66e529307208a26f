"""What a person sees when something is wrong: a sentence, a hint, an exit code; never a traceback."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.keyong.conftest import Run


def test_without_a_home_the_hint_says_how_to_get_one(keyong: Run, tmp_path: Path) -> None:
    ran = keyong("--home", tmp_path / "none", "whoami")
    assert (ran.code, ran.out) == (2, "")
    error, hint = ran.err.splitlines()
    assert error.startswith("error: there is no identity in ")
    assert hint.startswith("hint: found a consortium with `keyong consortium init`")


def test_errors_are_in_chinese_where_the_person_reads_it(
    keyong: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    ran = keyong("--home", tmp_path / "none", "whoami")
    assert ran.err.splitlines()[0] == f"错误：{tmp_path / 'none'} 中没有身份"
    assert keyong("--home", tmp_path / "none", "whoami", "--lang", "en").err.startswith("error: ")


def test_json_errors_are_one_object_and_not_translated(keyong: Run, tmp_path: Path) -> None:
    ran = keyong("--home", tmp_path / "none", "whoami", "--format", "json", "--lang", "zh")
    error = json.loads(ran.err)["error"]
    assert set(error) == {"code", "message", "hint", "exit"}
    assert (error["code"], error["exit"]) == ("no-home", 2)
    assert error["message"].startswith("there is no identity in ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello", "error: this is not an invitation (it should begin with keyong-invitation:)"),
        ("keyong-invitation:AAAA", "error: the invitation is damaged: part of it is missing or changed"),
        ("keyong-invitation:" + "A" * 400, "error: the invitation is damaged: part of it is missing or changed"),
        ("./no/such.file", "error: there is no file ./no/such.file"),
    ],
)
def test_a_bad_invitation_is_a_usage_error(keyong: Run, tmp_path: Path, text: str, sentence: str) -> None:
    ran = keyong("--home", tmp_path / "new", "join", text)
    assert ran.code == 2
    assert ran.err.splitlines()[0] == sentence
    assert not (tmp_path / "new" / "identity.json").exists()


def test_a_wrong_fingerprint_keeps_us_out(keyong: Run, founder: Path, tmp_path: Path) -> None:
    invitation = tmp_path / "a.invitation"
    assert keyong("--home", founder, "consortium", "invite", "mill-a", "--entity", "Mill A", "-o", invitation).code == 0
    ran = keyong("--home", tmp_path / "a", "join", invitation, "--fingerprint", "sha256:" + "0" * 64)
    assert ran.code == 2
    assert "root fingerprint is not the one you were given" in ran.err


def test_an_unreachable_coordinator_is_exit_code_5(keyong: Run, founder: Path) -> None:
    ran = keyong("--home", founder, "catalog", "list")
    assert ran.code == 5
    assert "cannot reach the coordinator at 127.0.0.1:" in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["whoami", "--frmat", "json"], "error: there is no option --frmat; did you mean --format?"),
        (["join"], "error: INVITATION is missing"),
        (["consortium", "init"], "error: --name is missing"),
        (["ledger", "show", "--last", "many"], "error: --last does not hold: many is not a whole number"),
        (["whoami", "--format", "xml"], "error: --format does not hold: xml is none of 'text', 'json'"),
    ],
)
def test_usage_errors_are_short_and_exit_2(keyong: Run, arguments: list[str], sentence: str) -> None:
    ran = keyong(*arguments)
    assert ran.code == 2
    assert ran.err.splitlines()[0] == sentence
    assert ran.err.splitlines()[1].startswith("hint: see: keyong")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["join"], "错误：缺少 INVITATION"),
        (["ledger", "show", "--last", "0"], "错误：--last 不成立：0 不在范围 1<=x<=100000 内"),
        (["ledger", "show", "1", "2"], "错误：给出的内容超出命令所接受的：2"),
        (["agreement", "explain", "."], "错误：无法读取 .：它是文件夹"),
    ],
)
def test_usage_errors_are_translated(keyong: Run, arguments: list[str], sentence: str) -> None:
    ran = keyong(*arguments, "--lang", "zh")
    assert (ran.code, ran.err.splitlines()[0]) == (2, sentence)
    said = json.loads(keyong(*arguments, "--lang", "zh", "--format", "json").err)["error"]["message"]
    assert said.isascii(), "JSON is not translated"


def test_a_group_without_a_command_shows_its_page(keyong: Run) -> None:
    ran = keyong("agreement")
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith("Usage: keyong agreement")
    assert json.loads(keyong("agreement", "--format", "json").err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["consortium", "invite", "Mill A", "--entity", "Mill A Ltd"],
            'error: "Mill A" cannot stand as the name of a member',
        ),
        (["consortium", "invite", "mill-a", "--entity", ""], 'error: "" cannot stand as a legal entity'),
        (["consortium", "remove", "nobody"], "error: the roster has no member nobody"),
        (
            ["node", "dataset", "add", "My Passes", "passes.csv", "--title", "x"],
            'error: "My Passes" cannot stand as the name of a dataset',
        ),
    ],
)
def test_names_that_cannot_be_are_the_callers_mistake(
    keyong: Run, founder: Path, passes: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(passes.parent)
    ran = keyong("--home", founder, *arguments)
    assert (ran.code, ran.err.splitlines()[0]) == (2, sentence)
    assert ran.err.splitlines()[1].startswith("hint: ")
    assert not (founder / "errors").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ledger", "statement", "--csv", "nowhere/may.csv"], "the directory nowhere does not exist"),
        (["ledger", "statement", "--page=nowhere/may.html"], "the directory nowhere does not exist"),
        (["ledger", "statement", "--csv", "."], ". is a folder"),
        (["ledger", "export", "nowhere/all.export"], "the directory nowhere does not exist"),
    ],
)
def test_a_path_that_leads_nowhere_is_the_callers_mistake(
    keyong: Run, founder: Path, passes: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(passes.parent)
    ran = keyong("--home", founder, *arguments)
    assert (ran.code, ran.err.splitlines()[-2:]) == (2, [f"error: {sentence}", "hint: check the path"])
    assert not (founder / "errors").exists()


def test_a_file_of_our_own_that_is_missing_is_no_mistake_of_the_caller(
    keyong: Run, founder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        (founder / "nowhere" / "own").read_bytes()

    monkeypatch.setattr("keyong.cli._context.open_home", broken)
    ran = keyong("--home", founder, "whoami")
    assert ran.code == 1 and "internal error (FileNotFoundError)" in ran.err


def test_an_internal_error_leaves_its_traceback_in_a_private_file_alone(
    keyong: Run, founder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("row 17 holds 4711.0")

    monkeypatch.setattr("keyong.cli._context.open_home", broken)
    ran = keyong("--home", founder, "whoami")
    assert ran.code == 1
    assert ran.err.startswith("error: internal error (RuntimeError)\nhint: the details are in ")
    assert "4711" not in ran.err + ran.out
    (file,) = (founder / "errors").iterdir()
    assert "4711" in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_internal_error_before_there_is_a_home_does_not_spoil_the_place(
    keyong: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyong.cli._context.open_home", lambda: 1 / 0)
    home = tmp_path / "later"
    assert keyong("--home", home, "whoami").code == 1
    monkeypatch.undo()
    arguments = ["consortium", "init", "--name", "P", "--member", "m", "--entity", "M", "--address", "127.0.0.1:7443"]
    assert keyong("--home", home, *arguments).code == 0


def test_a_refusing_sandbox_is_exit_code_5(keyong: Run, founder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox import SandboxError

    def refuse() -> None:
        raise SandboxError("bubblewrap is not installed", code="layer", hint="run keyong doctor")

    monkeypatch.setattr("keyong.cli._context.open_home", refuse)
    ran = keyong("--home", founder, "whoami")
    assert (ran.code, ran.err) == (5, "error: bubblewrap is not installed\nhint: run keyong doctor\n")


def test_ctrl_c_is_exit_code_130(keyong: Run, founder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyong.cli._context.open_home", interrupted)
    ran = keyong("--home", founder, "whoami")
    assert (ran.code, ran.err) == (130, "interrupted\n")


def test_what_others_wrote_cannot_steer_the_terminal(keyong: Run, tmp_path: Path) -> None:
    ran = keyong("--home", tmp_path / "x\x1b[2J", "whoami")
    assert "\x1b" not in ran.err
