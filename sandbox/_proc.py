"""Files under /proc, read many times a second."""

from __future__ import annotations

import os

_AT_ONCE = 64 * 1024


def read_proc(path: str) -> str:
    """Return a file's text as one character a byte; a third of what it takes through a text stream.

    Raises:
        OSError: it cannot be read; the process may be gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _AT_ONCE)
        part = data
        while part:  # a read may end anywhere: only an empty one is the end
            part = os.read(descriptor, _AT_ONCE)
            data += part
    finally:
        os.close(descriptor)
    return data.decode("latin-1")
