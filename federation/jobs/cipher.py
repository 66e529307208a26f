"""An encryption session: the one place where TenSEAL is spoken to, and where its bytes from outside are parsed.

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
import tenseal
from tenseal import sealapi

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
        self._context: Any = None
        self._total: list[Any] = []

    def keys(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """A fresh key pair: the public context, then the secret one."""
        context = tenseal.context(
            tenseal.SCHEME_TYPE.BFV,
            poly_modulus_degree=DEGREE,
            plain_modulus=MODULUS,
            coeff_mod_bit_sizes=list(COEFFICIENT_BITS),
        )
        leave_out = {"save_galois_keys": False, "save_relin_keys": False}
        public = context.serialize(save_public_key=True, save_secret_key=False, **leave_out)
        secret = context.serialize(save_public_key=True, save_secret_key=True, **leave_out)
        return {"sizes": [len(public), len(secret)]}, [public, secret]

    def context(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """Take a context, whose parameters are these and no others; with the secret key only where that is said."""
        context = tenseal.context_from(bytes(body))
        parameters = context.seal_context().data.key_context_data().parms()
        moduli = [one.value() for one in parameters.coeff_modulus()]
        if (
            parameters.poly_modulus_degree() != DEGREE
            or parameters.plain_modulus().value() != MODULUS
            or [modulus.bit_length() for modulus in moduli] != list(COEFFICIENT_BITS)
            or sum(modulus.bit_length() for modulus in moduli) > _MOST_BITS
        ):
            raise CipherError("cipher-parameters")
        if context.has_secret_key() != (header.get("secret") is True) or not context.has_public_key():
            raise CipherError("cipher-key")
        self._context, self._total = context, []
        return {}, []

    def encrypt(self, header: Mapping[str, object], body: Buffer) -> tuple[dict[str, object], list[bytes]]:
        """Elements, encrypted."""
        parts = [tenseal.bfv_vector(self._known(), part).serialize() for part in _elements(body)]
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
        context = self._known()
        if not context.has_secret_key():
            raise CipherError("cipher-key")
        reader = sealapi.Decryptor(context.seal_context().data, context.secret_key().data)
        elements: list[int] = []
        for vector in self._vectors(header, body):
            if any(reader.invariant_noise_budget(part) < NOISE_MARGIN for part in vector.ciphertext()):
                raise CipherError("cipher-noise")
            elements += [value % MODULUS for value in vector.decrypt()]
        return {}, [np.array(elements, dtype="<u8").tobytes()]

    def _known(self) -> Any:
        if self._context is None:
            raise CipherError("cipher-key")
        return self._context

    def _vectors(self, header: Mapping[str, object], body: Buffer) -> list[Any]:
        sizes = header.get("sizes")
        if not isinstance(sizes, list) or not sizes or not all(isinstance(one, int) and one > 0 for one in sizes):
            raise CipherError("cipher-size")
        if sum(sizes) != len(body):
            raise CipherError("cipher-size")
        at, vectors = 0, []
        for size in sizes:
            vectors.append(tenseal.bfv_vector_from(self._known(), bytes(body[at : at + size])))
            at += size
        return vectors


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
