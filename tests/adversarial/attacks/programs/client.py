"""The app that carries the attacks: each step names one in its content; what it got stands in the owner's logs."""

import importlib
import json
import os
import socket
import struct
import sys
import time

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .registry import ATTACKS

for group in ("files", "network", "processes", "kernel", "resources", "replies"):
    importlib.import_module(f".{group}", __package__)
app = ClientApp()
_SMALL = 300


class Job:
    """What an attack is given."""

    numpy = numpy

    def __init__(self, message, context, batch):
        self.message = message
        self.batch = batch
        self.tmp = os.environ["TMPDIR"]
        self.app = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.data = str(context.node_config["dataset-path"])
        with open(self.app + "/targets.json") as file:
            self.targets = json.load(file)
        self._end = time.monotonic() + float(self.targets["seconds"])

    def goes_on(self):
        """Whether an attack on time or room should go on; where nobody stops it, it has succeeded."""
        return time.monotonic() < self._end

    def had(self, name, count):
        """Tell how much of what is bounded an attack had."""
        print("LOOT", json.dumps({"name": name, "got": "", "why": "", "had": count}), flush=True)

    def leaves(self, _what):
        """Nothing was got inside; the trusted side looks for what was left."""
        return ""

    def reply(self, arrays=None, metrics=None, config=None, main=None, pickled=None):
        """An honest reply, with what an attack adds to it."""
        sent = self.message.content["arrays"].to_numpy_ndarrays()[0]
        records = ArrayRecord([sent + numpy.float32(1) if main is None else main])
        if pickled is not None:
            records = ArrayRecord({"0": Array(dtype="float32", shape=(2,), stype="pickle", data=pickled)})
        for name, array in (arrays or {}).items():
            records[name] = Array(array)
        found = {
            "arrays": records,
            "metrics": MetricRecord({"loss": 0.5, "num-examples": 3, **(metrics or {})}),
        }
        if config:
            found["config"] = ConfigRecord(config)
        return Message(RecordDict(found), reply_to=self.message)

    def send(self, header):
        """Write a frame past Flower."""
        self.send_text(json.dumps(header).encode())

    def send_text(self, text):
        """Write a frame with this header."""
        self.send_bytes(struct.pack(">IQ", len(text), 0) + text)

    def send_bytes(self, data):
        """Write to the channel itself."""
        for number in range(3, 64):
            try:
                os.fstat(number)
                with socket.socket(fileno=os.dup(number)) as channel:
                    channel.sendall(data)
                    return
            except OSError:
                continue


def _tell(name, got, why=""):
    print("LOOT", json.dumps({"name": name, "got": str(got)[:_SMALL] if got else "", "why": why}), flush=True)


def _try(one, job):
    try:
        got = one(job)
    except Exception as error:
        _tell(one.name, "", type(error).__name__)
        return
    _tell(one.name, got)


def _try_apart(one, job):
    """In a process of its own: some attacks are punished by death."""
    child = os.fork()
    if child == 0:
        try:
            _try(one, job)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        _tell(one.name, "", f"signal {os.WTERMSIG(status)}")


@app.train()
def train(message, context):
    """Try what the content names."""
    names = str(message.content["config"]["mode"]).split()
    me = os.getpid()
    if len(names) == 1 and ATTACKS[names[0]].kind != "act":
        found = ATTACKS[names[0]](Job(message, context, False))
        if os.getpid() != me:  # a child that an attack made comes back here, too
            os._exit(0)
        return Job(message, context, False).reply() if found is None else found
    job = Job(message, context, len(names) > 1)
    for name in names:
        if len(names) == 1 or ATTACKS[name].alone:
            _try(ATTACKS[name], job)
        else:
            _try_apart(ATTACKS[name], job)
        if os.getpid() != me:
            os._exit(0)
    sys.stdout.flush()
    return job.reply()
