"""Run by the crash test: append without end, and say each index on stdout once it is acknowledged."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from federation.crypto import SigningKey
from federation.ledger import Ledger


def main() -> None:
    folder = Path(sys.argv[1])
    ledger = Ledger.open(folder, SigningKey.from_bytes(bytes(range(32))))
    lock = threading.Lock()

    def work(name: int) -> None:
        while True:
            appended = ledger.append("intent", {"worker": name})
            with lock:
                sys.stdout.write(f"{appended.index} {appended.leaf_hash.hex()}\n")
                sys.stdout.flush()

    for name in range(4):
        threading.Thread(target=work, args=(name,)).start()


if __name__ == "__main__":
    main()
