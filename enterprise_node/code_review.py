"""An app's files as an owner reads them: numbered lines that cannot steer a terminal, differences, what stands out.

Everything here was written by another company, and may have been written to mislead: a line that a terminal shows is the
line that Python reads, with control characters, direction marks and look-alikes of spaces made visible.
"""

from __future__ import annotations

import difflib
import io
import re
import tokenize
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from federation.crypto import sha256_hex
from federation.statements.code import CodeBundle

LONG_LINE = 200
"""A line beyond this leaves the screen, and what stands at its end may be overlooked."""
_BREAKS = re.compile("\r\n|\r|\n")
"""What Python takes for the end of a line, and nothing else: ``splitlines`` would count others too."""


@dataclass(frozen=True)
class ShownFile:
    """One file: its lines, or none where it is not text; and what a reader should know of it."""

    path: str
    size: int
    sha256: str
    lines: tuple[str, ...] | None
    odd: tuple[str, ...]
    """Codes of what stands out: ``control-characters``, ``long-lines``, ``encoding``, ``binary``, ``non-ascii-names``."""


def shown(bundle: CodeBundle) -> Iterator[ShownFile]:
    """Every file of a bundle, by path."""
    for path, data in sorted(bundle.files.items()):
        yield shown_file(path, data)


def shown_file(path: str, data: bytes) -> ShownFile:
    """One file as an owner reads it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ShownFile(path, len(data), sha256_hex(data), None, ("binary",))
    raw = _BREAKS.split(text)
    lines = [visible(line) for line in (raw[:-1] if raw and raw[-1] == "" else raw)]
    odd = []
    if any(line != visible(line, tabs=False) for line in raw):
        odd.append("control-characters")
    if any(len(line) > LONG_LINE for line in lines):
        odd.append("long-lines")
    if path.endswith(".py"):
        if _declared(data) not in ("utf-8", "utf-8-sig", "ascii"):
            odd.append("encoding")
        if re.search(r"[^\W\d]", "".join(char for char in text if ord(char) > 127)) and _foreign_name(data):
            odd.append("non-ascii-names")
    return ShownFile(path, len(data), sha256_hex(data), tuple(lines), tuple(odd))


def visible(line: str, *, tabs: bool = True) -> str:
    """A line with everything made visible that a terminal would act on or hide.

    Args:
        tabs: expand them, as an editor shows them.
    """
    if tabs:
        line = line.expandtabs(4)
    return "".join(char if char == "\t" or _plain(char) else f"<U+{ord(char):04X}>" for char in line)


def _plain(char: str) -> bool:
    if char == " ":
        return True
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")


def _declared(data: bytes) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except (SyntaxError, UnicodeDecodeError):
        return "?"


def _foreign_name(data: bytes) -> bool:
    """Whether a name in a program is spelled with letters beyond ASCII: one that looks like another need not be it."""
    try:
        return any(
            token.type == tokenize.NAME and not token.string.isascii()
            for token in tokenize.tokenize(io.BytesIO(data).readline)
        )
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError, IndentationError):
        return True


def differences(before: CodeBundle, after: CodeBundle) -> Iterator[str]:
    """What changed from one version to the next, as a unified diff of what is shown; files that are not text by digest."""
    for path in sorted({*before.files, *after.files}):
        old, new = before.files.get(path), after.files.get(path)
        if old == new:
            continue
        left = shown_file(path, old) if old is not None else None
        right = shown_file(path, new) if new is not None else None
        if (left is not None and left.lines is None) or (right is not None and right.lines is None):
            yield f"--- {visible(path)} {left.sha256 if left else '-'}"
            yield f"+++ {visible(path)} {right.sha256 if right else '-'}"
            continue
        yield from difflib.unified_diff(
            left.lines or () if left else (),
            right.lines or () if right else (),
            visible(path) if left else "/dev/null",
            visible(path) if right else "/dev/null",
            lineterm="",
        )
