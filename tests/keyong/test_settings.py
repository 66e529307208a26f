"""Settings: the file below the environment below the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.recording import Room
from keyong.cli import _state
from keyong.cli.settings import Settings, SettingsError, load
from tests.keyong.conftest import Run


def _prepare(home: Path, *arguments: str) -> None:
    _state.prepare(["--home", str(home), *arguments])


def test_flags_win_over_environment_and_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('listen = "a:1"\nruntime = "file"\nlog_level = "debug"\n', encoding="utf-8")
    _prepare(tmp_path)
    assert load().listen == "a:1"
    monkeypatch.setenv("KEYONG_LISTEN", "b:2")
    monkeypatch.setenv("KEYONG_RUNTIME", "environment")
    assert (load().listen, load().runtime, load().log_level) == ("b:2", "environment", "debug")
    assert load(listen="c:3", runtime=None).listen == "c:3"
    assert load(listen="c:3", runtime=None).runtime == "environment"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("lissen = 'a:1'\n", "lissen"),
        ("runtime = 'A B'\n", "runtime"),
        ("log_level = 'loud'\n", "log_level"),
        ("listen = \n", "is not TOML"),
        ("recording_gib = -1\n", "recording_gib"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    _prepare(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load()
    assert part in caught.value.message
    assert caught.value.exit_code == 2


def test_the_room_for_recordings_is_set_in_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _prepare(tmp_path)
    assert load().room() == Room()
    (tmp_path / "config.toml").write_text("recordings_gib = 2\n", encoding="utf-8")
    monkeypatch.setenv("KEYONG_RECORDING_GIB", "0.5")
    assert load().room() == Room(job=2**29, together=2**31)


def test_language_and_format_come_from_the_file_too(keyong: Run, founder: Path) -> None:
    (founder / "config.toml").write_text('lang = "zh"\nformat = "json"\n', encoding="utf-8")
    assert keyong("--home", founder, "whoami").json["member"] == "inst"
    assert keyong("--home", founder, "whoami", "--format", "text").out.splitlines()[0] == "成员      inst"


def test_every_setting_says_what_it_is() -> None:
    """An undocumented setting fails here."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Settings)).body[0].body  # type: ignore[attr-defined]
    for number, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            following = body[number + 1]
            assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), ast.unparse(node)
