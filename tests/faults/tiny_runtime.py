"""A runtime whose workers need the standard library alone, so that a real sandbox session starts in a blink.

They speak the protocol of sessions (docs/protocol.md). A client part answers with the arrays it was sent; a server part
asks for as many rounds of training as the job's config says. What an app's folder holds is not imported.
"""

from __future__ import annotations

import json
from pathlib import Path

from keyong.runtime import job_python

WORKER = """
import json, os, socket, struct, sys

channel = socket.socket(fileno=int(os.environ["KEYONG_CHANNEL_FD"]))


def read(size):
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def receive():
    header, body = struct.unpack(">IQ", read(12))
    return json.loads(read(header)), read(body & ~(3 << 62))  # the marks: a small body never lies in a file


def send(header, body=b""):
    raw = json.dumps(header).encode()
    channel.sendall(struct.pack(">IQ", len(raw), len(body)) + raw + body)


def client():
    receive()
    send({"op": "ready"})
    while True:
        header, body = receive()
        metrics = [["metrics", [["num-examples", 1], ["loss", 0.5]]]]
        content = {"v": 1, "arrays": header["content"]["arrays"], "metrics": metrics, "configs": []}
        send({"op": "reply", "content": content}, body)


def server():
    start, _ = receive()
    body = bytes(8 * 64)
    content = {"v": 1, "arrays": [["arrays", [["w", "float64", [64]]]]], "metrics": [], "configs": []}
    for number in range(int(start["run_config"].get("num-server-rounds", 1))):
        messages = [{"node_id": node} for node in start["node_ids"]]
        send({"op": "exchange", "type": "train", "messages": messages, "contents": [content],
              "weight_key": "num-examples"}, body)
        header, body = receive()
        if header["op"] != "replies":
            os._exit(1)
    send({"op": "file", "path": "note.txt"}, b"done")
    send({"op": "done"})


{"client": client, "server": server}[sys.argv[1]]()
"""


def build(folder: Path) -> Path:
    """Lay the runtime out; returns what ``KEYONG_RUNTIMES`` is to be."""
    package = folder / "torch" / "site-packages" / "keyong_job"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(WORKER)
    digest = "sha256:" + "7" * 64
    manifest = {"name": "torch", "digest": digest, "python": str(job_python()), "packages": {}, "files": 2, "seen": {}}
    (folder / "torch" / "manifest.json").write_text(json.dumps(manifest))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
