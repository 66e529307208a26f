"""An encryption session: where TenSEAL's bytes from outside are parsed, and its parameters judged.

BFV, N = 8192, moduli of [60, 60, 60] bits (180 of the 218 that 128-bit security allows, eprint 2024/463), plaintexts modulo the
prime t, 8,192 of them in a ciphertext. Ciphertexts are added, and a plaintext to a sum, nothing else: fresh noise leaves 62 bits,
a thousand additions take ten. A session sees what its side knows anyway: at a node the masked vector, at the coordinator
ciphertexts, at the asker its own key and answer. None of them sees a row.

Frames in: ``keys``, ``context`` (body: a serialized context), ``encrypt`` (body: elements), ``add`` (body: ciphertexts of one
vector, ``sizes``), ``finish`` (body: elements to add to the sum), ``decrypt`` (body, ``sizes``). Frames out: ``done`` with what
was asked for, or ``error`` with a code. Elements are uint64, little endian, below t.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ._bfv import Bfv, read_context
from .frames import Buffer, Channel, FrameError
from .session import MAX_BODY, finish, open_channel

DEGREE = 8192
MODULUS = 1125899904679937
COEFFICIENT_BITS = (60, 60, 60)
NOISE_MARGIN = 20
"""Bits of noise budget that an answer has left at least; one with less was not made by additions alone."""
_MOST_BITS = 218


class CipherError(ValueError):
    """What came is not what the operation takes; ``code`` says which rule it broke."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Cipher:
    """The state of one session."""

    def __init__(self) -> None:
        self._bfv: Bfv | None = None
        """Of the parameters that were found right; they serve every key."""
        self._encryptor: Any = None
        self._secret: Any = None
        self._total: list[Any] = []

    def keys(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """A fresh key pair: the public context, then the secret one."""
        if self._bfv is None:
            self._bfv = Bfv.make(DEGREE, MODULUS, list(COEFFICIENT_BITS))
        public, secret = self._bfv.keys()
        return {"sizes": [len(public), len(secret)]}, [public, secret]

    def context(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """Take a context, whose parameters are these and no others; with the secret key only where that is said."""
        self._encryptor, self._secret, self._total = None, None, []
        told = read_context(bytes(body))
        if self._bfv is None or self._bfv.parameters != told.encryption_parameters:
            self._bfv = _judged(told.encryption_parameters)
        public, secret = told.public_context.public_key, told.private_context.secret_key
        if bool(secret) != (header.get("secret") is True) or not public:
            raise CipherError("cipher-key")
        encryptor = self._bfv.encryptor(public)
        self._secret = self._bfv.secret_key(secret) if secret else None
        self._encryptor = encryptor
        return {}, []

    def encrypt(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """Elements, encrypted."""
        bfv = self._known()
        parts = [bfv.encrypt(self._encryptor, part) for part in _elements(body)]
        return {"sizes": [len(part) for part in parts]}, parts

    def add(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """Add one vector's ciphertexts to the sum."""
        vectors = self._vectors(header, body)
        if not self._total:
            self._total = vectors
        elif [one.size() for one in vectors] != [one.size() for one in self._total]:
            raise CipherError("cipher-size")
        else:
            for total, one in zip(self._total, vectors, strict=True):
                total.add_(one)
        return {}, []

    def finish(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """The sum with some elements added to it."""
        corrections = list(_elements(body))
        if [len(one) for one in corrections] != [one.size() for one in self._total]:
            raise CipherError("cipher-size")
        parts = []
        for total, correction in zip(self._total, corrections, strict=True):
            total.add_(correction)
            parts.append(total.serialize())
        self._total = []
        return {"sizes": [len(part) for part in parts]}, parts

    def decrypt(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """The elements of ciphertexts, once their noise shows that they are right."""
        bfv = self._known()
        if self._secret is None:
            raise CipherError("cipher-key")
        elements: list[int] = []
        for vector in self._vectors(header, body):
            found, left = bfv.decrypt(self._secret, vector)
            if left < NOISE_MARGIN:
                raise CipherError("cipher-noise")
            elements += found
        return {}, [np.array(elements, dtype="<u8").tobytes()]

    def _known(self) -> Bfv:
        if self._bfv is None or self._encryptor is None:
            raise CipherError("cipher-key")
        return self._bfv

    def _vectors(self, header: Mapping[str, object], body: Buffer) -> list[Any]:
        sizes = header.get("sizes")
        if not isinstance(sizes, list) or not sizes or not all(isinstance(one, int) and one > 0 for one in sizes):
            raise CipherError("cipher-size")
        if sum(sizes) != len(body):
            raise CipherError("cipher-size")
        at, vectors = 0, []
        for size in sizes:
            vectors.append(self._known().vector(bytes(body[at : at + size])))
            at += size
        return vectors


def _judged(serialized: bytes) -> Bfv:
    """What these parameters give; raises CipherError unless they are the ones that queries have."""
    bfv = Bfv(serialized)
    parameters = bfv.context.seal_context().data.key_context_data().parms()
    moduli = [one.value() for one in parameters.coeff_modulus()]
    if (
        parameters.poly_modulus_degree() != DEGREE
        or parameters.plain_modulus().value() != MODULUS
        or [modulus.bit_length() for modulus in moduli] != list(COEFFICIENT_BITS)
        or sum(modulus.bit_length() for modulus in moduli) > _MOST_BITS
    ):
        raise CipherError("cipher-parameters")
    return bfv


def _elements(body: Buffer) -> Iterator[list[int]]:
    """Elements in parts of as many as a ciphertext holds."""
    values = np.frombuffer(body, dtype="<u8")
    if not len(values) or int(values.max()) >= MODULUS:
        raise CipherError("cipher-element")
    for start in range(0, len(values), DEGREE):
        yield values[start : start + DEGREE].tolist()


def serve(channel: Channel) -> None:
    """Answer frames until the channel closes."""
    cipher = Cipher()
    operations = {name: getattr(cipher, name) for name in ("keys", "context", "encrypt", "add", "finish", "decrypt")}
    while True:
        try:
            header, body = channel.receive(MAX_BODY)
        except FrameError as error:
            if error.code == "frame-closed":
                return
            raise
        try:
            told, parts = operations[str(header["op"])](header, body)
        except CipherError as error:
            channel.send({"op": "error", "code": error.code})
        except Exception as error:
            traceback.print_exception(error)
            sys.stderr.flush()
            channel.send({"op": "error", "code": "cipher-format"})
        else:
            channel.send({"op": "done", **told}, parts)


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    serve(open_channel())
    finish()
