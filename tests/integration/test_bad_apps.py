"""Job code that fails, hangs or answers what it may not: a code for the requester, the whole story for the owner."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.apps import CLIENT, SERVER, client_that, write_app
from tests.integration.consortium import MILLS, Consortium

SCHEMA = "".join(f'[[columns]]\nname = "{name}"\ntype = "number"\n' for name in ("x1", "x2", "x3", "y"))


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "schema.toml"
    path.write_text(SCHEMA)
    return path


def test_a_syntax_error(consortium: Consortium, schema: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client=CLIENT + "\ndef train(:\n")
    check = consortium.institute.run("job", "check", app, "--schema", schema)
    check.refused(2, "app-syntax", traceback=True)
    shown = check.out + check.err.partition("error:")[0]
    assert "SyntaxError" in shown and "client_app.py" in shown, "a check shows everything"
    run = consortium.job(app)
    assert run.code not in (0, 3) and "Traceback" not in run.err
    assert "app-exception" in run.err and "app-syntax" not in run.err, run.err
    logs = consortium.logs(consortium.mill("a"), consortium.job_id())
    assert "SyntaxError" in str(logs) and logs["steps"][-1]["code"] == "app-syntax", "the owner sees it"


def _add(name: bytes) -> Callable[[Path], object]:
    return lambda app: Path(os.fsdecode(os.fsencode(app) + b"/" + name)).write_text("")


def _sparse(app: Path) -> None:
    with (app / "data.bin").open("wb") as file:
        file.truncate(33 << 20)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda app: (app / "link").symlink_to("/etc/passwd"), "is a link or a device"),
    "a link to a folder": (lambda app: (app / "link").symlink_to("/etc"), "is a link or a device"),
    "a dangling link": (lambda app: (app / "link").symlink_to("/nowhere"), "is a link or a device"),
    "a pipe": (lambda app: os.mkfifo(app / "pipe"), "is a link or a device"),
    "a name that is no UTF-8": (_add(b"\xff\xfe.py"), "cannot carry the file name"),
    "a name with a control character": (_add(b"a\x1b[2Jb.py"), "cannot carry the file name"),
    "a name with a backslash": (_add(b"a\\b.py"), "cannot carry the file name"),
    "a large file": (_sparse, "larger than"),
    "many files": (lambda app: [(app / f"{number}.txt").touch() for number in range(2001)], "larger than"),
    "no project": (lambda app: (app / "pyproject.toml").unlink(), "no pyproject.toml"),
    "no TOML": (lambda app: (app / "pyproject.toml").write_bytes(b"\xff\xfe"), "cannot be read"),
    "half a project": (lambda app: (app / "pyproject.toml").write_text("[project"), "cannot be read"),
    "no components": (lambda app: (app / "pyproject.toml").write_text("[project]\n"), "serverapp and clientapp"),
    "endless brackets": (lambda app: _append(app, "x = " + "[" * 50_000 + "]" * 50_000), "cannot be read"),
    "endless dots": (
        lambda app: _append(app, "[tool.flwr.app.config." + ".".join("a" * 5000) + "]\nb = 1"),
        "too deeply",
    ),
    "endless digits": (lambda app: _append(app, "x = " + "9" * 5000), "cannot be read"),
}


def _append(app: Path, text: str) -> None:
    with (app / "pyproject.toml").open("a") as file:
        file.write("\n" + text + "\n")


@pytest.mark.long
def test_folders_that_are_no_app_are_refused_before_anything_is_asked(consortium: Consortium, tmp_path: Path) -> None:
    def asked() -> list[int]:
        return [len(consortium.entries(mill, kind)) for mill in consortium.mills for kind in ("denied", "intent")]

    before = asked()
    for number, (case, (spoil, words)) in enumerate(FOLDERS.items()):
        app = write_app(tmp_path / f"app{number}")
        spoil(app)
        run = consortium.job(app)
        assert words in run.err, (case, run.err)
        run.refused(2, hint=False)
        assert "\x1b" not in run.err, "what a file is called does not drive the terminal"
    assert asked() == before


def test_a_missing_dependency(consortium: Consortium, schema: Path, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client="import tensorflow_of_tomorrow\n" + CLIENT)
    check = consortium.institute.run("job", "check", app, "--schema", schema)
    check.refused(2, "app-missing-dependency", traceback=True)
    assert "tensorflow_of_tomorrow" in check.out + check.err
    server = write_app(tmp_path / "server", server="import tensorflow_of_tomorrow\n" + SERVER)
    run = consortium.job(server)
    run.refused(1, "tensorflow_of_tomorrow")


def test_inv3_an_exception_in_the_client_part(consortium: Consortium, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client=client_that('raise ValueError(f"first row {x[0, 0]!r} SECRET")'))
    run = consortium.job(app)
    assert run.code != 0
    assert "app-exception" in run.err and "SECRET" not in run.err + run.out
    logs = consortium.logs(consortium.mill("b"), consortium.job_id())
    assert "SECRET" in logs["stderr"], "the owner sees what the code raised"


def test_an_endless_loop(consortium: Consortium, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client=client_that("while True: pass"))
    run = consortium.submit(app, round_seconds=3)
    assert run.status == "failed"
    assert set(run.fallen.values()) == {"limit-wall"}, run.events
    for mill in consortium.mills:
        assert not any((mill.home / "sessions").iterdir()), "a snapshot was left behind"
        assert "limit-wall" in str(consortium.entries(mill, "outcome")[-1])


SHAPE, NAN, CONFIG, EXTRA, HUGE, CLAIM = range(6)
BEHAVIOURS = """
what = int(context.run_config["behaviours"].split(",")[{200: 0, 300: 1, 500: 2}[len(y)]])
if what == 0:
    return reply(message, np.zeros((4, 4)), good)
if what == 1:
    return reply(message, w * np.nan, good)
if what == 2:
    return reply(message, w, good, said=ConfigRecord({"x": float(x[0, 0])}))
if what == 3:
    return reply(message, w, {**good, "x": float(x[0, 0])})
if what == 4:
    return reply(message, np.ones(10 * 2**30, dtype=np.uint8), good)
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        connection = socket.socket(fileno=os.dup(number))
    except OSError:
        continue
    header = b'{"op":"reply","content":{}}'
    try:
        connection.sendall(struct.pack(">IQ", len(header), 10 * 2**30) + header + bytes(4096))
    except OSError:
        pass
return reply(message, w, good)
"""
IMPORTS = "import os\nimport socket\nimport struct\nfrom flwr.app import ConfigRecord"


@pytest.mark.parametrize(
    ("behaviours", "codes"),
    [
        ((SHAPE, NAN, CONFIG), ({"output-refused"}, {"output-refused"}, {"output-refused"})),
        pytest.param(
            (EXTRA, HUGE, CLAIM),
            ({"output-refused"}, {"limit-memory", "output-refused"}, {"output-refused"}),
            marks=pytest.mark.long,  # shorter: each of them in tests/enterprise_node/test_output_gate.py
        ),
    ],
)
def test_inv3_replies_that_do_not_leave(
    consortium: Consortium, tmp_path: Path, behaviours: tuple[int, ...], codes: tuple[set[str], ...]
) -> None:
    text = ",".join(map(str, behaviours))
    app = write_app(
        tmp_path / "app", client=client_that(BEHAVIOURS, before=IMPORTS), config={"behaviours": f'"{text}"'}
    )
    run = consortium.submit(app)
    assert run.status == "failed"
    for name, expected in zip(MILLS, codes, strict=True):
        assert run.fallen[name] in expected, run.events
        outcome = str(consortium.entries(consortium.mill(name[-1]), "outcome")[-1])
        assert run.fallen[name] in outcome
    assert not any("metrics" in event["data"] for event in run.events), "nothing of the round is shown"
