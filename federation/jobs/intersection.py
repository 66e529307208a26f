"""An intersection session: two companies' keys, each blinded by the other, on openmined-psi (Diffie-Hellman over P-256).

    node    blinds its keys, twice, under two secrets and in two orders        {H(b)^p}, {H(b)^q}
    asker   raises all of them to its own secret, and blinds its own keys      {H(b)^pa}, {H(b)^qa}, {H(a)^a}
    node    takes its secrets off again: the same set must come out twice      {H(b)^a}; counts {H(a)^a} in it

Only the node learns a size, and what it tells of it is its own affair. The second blinding keeps an asker to the protocol:
who raises some elements to other powers, to make one key count for many, has to do the same to the same keys in both lists, and
cannot tell which those are. Under the decisional Diffie-Hellman assumption neither side learns more of the other's keys than
how many there are; a node's are filled up with keys that nobody has.

Frames in: ``blind`` (``data``, ``column``) and ``size`` (body: setup, two responses) at a node, ``answer`` (body: two blinded
lists, keys as JSON) at an asker. Frames out: ``done`` with what was asked for, or ``error`` with a code.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._parts import PartsError, serve
from .session import finish, open_channel

DATA_FILE = "data.parquet"
MOST_KEYS = 50_000
PADDED_TO = 256
_FALSE_POSITIVES = 1e-12
_ORDER = random.SystemRandom()


def _library() -> Any:
    try:
        from private_set_intersection import python as psi  # type: ignore[import-untyped]
    except ImportError:
        raise PartsError("psi-missing") from None
    return psi


def normal_keys(values: Iterable[object]) -> list[str]:
    """Distinct keys in the form in which both sides compare them: without blanks, in upper case."""
    return sorted({key for value in values if value is not None and (key := "".join(str(value).split()).upper())})


class Intersection:
    """The state of one session."""

    def __init__(self) -> None:
        self._mine = 0
        self._clients: list[Any] = []
        self._asked = 0

    def blind(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """The keys of a snapshot's column, blinded twice."""
        import duckdb

        psi = _library()
        name = str(header["column"]).replace('"', '""')
        place = str(Path(str(header["data"])) / DATA_FILE)
        rows = duckdb.execute(f'SELECT DISTINCT CAST("{name}" AS VARCHAR) FROM read_parquet(?)', [place]).fetchall()  # noqa: S608
        keys = normal_keys(row[0] for row in rows)
        self._mine = len(keys)
        if self._mine > MOST_KEYS:
            raise PartsError("too-few-keys")
        # a blank stands in no key, so nobody has these
        keys += [f"pad {secrets.token_hex(16)}" for _ in range(-len(keys) % PADDED_TO or PADDED_TO * (not keys))]
        self._asked = len(keys)
        self._clients, made = [], []
        for _ in range(2):
            client = psi.client.CreateWithNewKey(False)
            _ORDER.shuffle(keys)
            made.append(client.CreateRequest(keys).SerializeToString())
            self._clients.append(client)
        return {}, made

    def size(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """How many keys both sides have, and how many either has."""
        psi = _library()
        if len(parts) != 3 or not self._clients:
            raise PartsError("psi-order")
        setup = psi.ServerSetup()
        setup.ParseFromString(parts[0])
        if setup.WhichOneof("data_structure") != "raw":
            raise PartsError("psi-format")
        theirs = {bytes(one)[1:] for one in setup.raw.encrypted_elements}
        if len(theirs) != len(setup.raw.encrypted_elements) or len(theirs) > MOST_KEYS:
            raise PartsError("psi-format")
        clients, self._clients = self._clients, []  # once: a second answer to the same keys would be another question
        lists = []
        for client, part in zip(clients, parts[1:], strict=True):
            response = psi.Response()
            response.ParseFromString(part)
            lists.append(_unblinded(list(response.encrypted_elements), client.GetPrivateKeyBytes()))
        first, second = lists
        if first != second or len(first) != self._asked:
            raise PartsError("psi-cheating")
        return {"size": len(first & theirs), "mine": self._mine, "theirs": len(theirs)}, []

    def answer(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """The asker's keys under its secret, and a node's two lists under it, too."""
        psi = _library()
        if len(parts) != 3:
            raise PartsError("psi-order")
        keys = normal_keys(json.loads(parts[2]))
        if len(keys) > MOST_KEYS:
            raise PartsError("too-few-keys")
        server = psi.server.CreateWithNewKey(False)
        setup = server.CreateSetupMessage(_FALSE_POSITIVES, MOST_KEYS, keys, psi.DataStructure.RAW)
        made = [setup.SerializeToString()]
        for part in parts[:2]:
            request = psi.Request()
            request.ParseFromString(part)
            if not 0 < len(request.encrypted_elements) <= MOST_KEYS + PADDED_TO or request.reveal_intersection:
                raise PartsError("psi-format")
            made.append(server.ProcessRequest(request).SerializeToString())
        return {"mine": len(keys)}, made


def _unblinded(elements: Sequence[bytes], secret: bytes) -> set[bytes]:
    """The first coordinates of points with a secret taken off them.

    Raises:
        PartsError: one is no point of the curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.SECP256R1()
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    inverse = ec.derive_private_key(pow(int.from_bytes(secret, "big"), -1, order), curve)
    try:
        points = [ec.EllipticCurvePublicKey.from_encoded_point(curve, bytes(one)) for one in elements]
    except ValueError:
        raise PartsError("psi-format") from None
    return {inverse.exchange(ec.ECDH(), point) for point in points}


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    intersection = Intersection()
    serve(open_channel(), {name: getattr(intersection, name) for name in ("blind", "size", "answer")}, "psi-format")
    finish()
