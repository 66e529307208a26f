"""A scoring session: CKKS between an asker's encrypted coefficients and a node's moments.

TenSEAL's CKKS, N = 8192, moduli of [60, 60, 60] bits (180 of the 218 that 128-bit security allows, eprint 2024/463), one
multiplication by a plaintext and rotations by powers of two. The coefficients stand in the slots over and over, so that after the
rotations every slot holds the whole sum, and none a part of it.

Before a result leaves a node it is made to say nothing but that sum: a fresh encryption of zero under the asker's public
key is added, and a plaintext of Gaussian noise in every slot (`FLOOD`), 2^20 times larger than what of the moments is left in the
ciphertext's own error. The asker's session opens a result to two figures rounded to `STEP` and gives away nothing else: what
CKKS decrypts to says something of the key (Li, Micciancio 2021, eprint 2020/1533), and nobody can publish what nobody holds.

Frames in: ``keys``; ``take`` (body: context, rotation keys where there are any); ``encrypt`` (body: coefficients); ``evaluate``
(body: the coefficients' ciphertext, moments); ``open`` (body: two ciphertexts). Frames out: ``done`` or ``error`` with a code.
Numbers are float64, little endian.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tenseal
from tenseal import sealapi

from ._parts import PartsError, serve
from .session import finish, open_channel

DEGREE = 8192
SLOTS = DEGREE // 2
COEFFICIENT_BITS = (60, 60, 60)
MODEL_SCALE = 2.0**65
MOMENT_SCALE = 2.0**40
MOST_VALUES = 512
ROTATIONS = tuple(2**at for at in range(9))
FLOOD = 2.0**-15
"""Standard deviation of the noise in each slot: 2^90 in a ciphertext of scale 2^105. Error times moments is below 2^58 there,
what rounding the moments leaves below 2^70."""
STEP = 2.0**-17
MOST_FIGURE = 2.0**12
_MOST_BITS = 218


class Scoring:
    """The state of one session."""

    def __init__(self) -> None:
        self._context: Any = None
        self._rotations: Any = None
        self._opened = False
        self._folder = Path(tempfile.mkdtemp())

    def keys(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """A fresh key pair: public context, rotation keys, secret context."""
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=DEGREE, coeff_mod_bit_sizes=list(COEFFICIENT_BITS)
        )
        leave_out = {"save_galois_keys": False, "save_relin_keys": False}
        public = context.serialize(save_public_key=True, save_secret_key=False, **leave_out)
        secret = context.serialize(save_public_key=True, save_secret_key=True, **leave_out)
        maker = sealapi.KeyGenerator(context.seal_context().data, context.secret_key().data)
        rotations = self._bytes(maker.create_galois_keys([pow(3, step, 2 * DEGREE) for step in ROTATIONS]))
        return {}, [public, rotations, secret]

    def take(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """Take a context, whose parameters are these and no others; with the secret key only where that is said."""
        if not 1 <= len(parts) <= 2:
            raise PartsError("scoring-size")
        context = tenseal.context_from(parts[0])
        inner = context.seal_context().data
        parameters = inner.key_context_data().parms()
        bits = [one.value().bit_length() for one in parameters.coeff_modulus()]
        if (
            parameters.scheme().name != "CKKS"
            or parameters.poly_modulus_degree() != DEGREE
            or bits != list(COEFFICIENT_BITS)
            or sum(bits) > _MOST_BITS
        ):
            raise PartsError("scoring-parameters")
        if context.has_secret_key() != (header.get("secret") is True) or not context.has_public_key():
            raise PartsError("scoring-key")
        if len(parts) == 2:
            self._rotations = sealapi.GaloisKeys()
            self._rotations.load(inner, self._file(parts[1]))
        self._context = context
        return {}, []

    def encrypt(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """Coefficients, encrypted."""
        (body,) = parts
        plain = self._encoded(_numbers(body), MODEL_SCALE, self._seal().first_parms_id())
        made = sealapi.Ciphertext()
        self._encryptor().encrypt(plain, made)
        return {}, [self._bytes(made)]

    def evaluate(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """The sum of moments times coefficients, and the first of the moments, both encrypted and flooded."""
        if len(parts) != 2 or self._rotations is None or self._known().has_secret_key():
            raise PartsError("scoring-key")
        seal, work = self._seal(), sealapi.Evaluator(self._seal())
        total = self._ciphertext(parts[0], MODEL_SCALE)
        moments = _numbers(parts[1])
        work.multiply_plain_inplace(total, self._encoded(moments, MOMENT_SCALE, seal.first_parms_id()))
        step = 1
        while step < len(moments):
            turned = sealapi.Ciphertext()
            work.rotate_vector(total, step, self._rotations, turned)
            work.add_inplace(total, turned)
            step *= 2
        count = self._zero(MODEL_SCALE * MOMENT_SCALE)
        first = self._encoded(np.full(1, moments[0]), MODEL_SCALE * MOMENT_SCALE, seal.first_parms_id())
        work.add_plain_inplace(count, first)
        return {}, [self._bytes(self._flooded(work, one)) for one in (total, count)]

    def open(self, header: Mapping[str, object], parts: list[bytes]) -> tuple[dict[str, object], list[bytes]]:
        """The two figures of a result, rounded; once."""
        context = self._known()
        if len(parts) != 2 or not context.has_secret_key() or self._opened:
            raise PartsError("scoring-key")
        self._opened = True
        reader = sealapi.Decryptor(self._seal(), context.secret_key().data)
        figures = []
        for part in parts:
            plain = sealapi.Plaintext()
            reader.decrypt(self._ciphertext(part, MODEL_SCALE * MOMENT_SCALE), plain)
            slots = np.array(sealapi.CKKSEncoder(self._seal()).decode_double(plain))
            # each slot holds the same figure; where they do not, it was not made by the steps above
            if not np.isfinite(slots).all() or float(np.abs(slots - slots.mean()).max()) > 64 * FLOOD:
                raise PartsError("scoring-noise")
            figure = float(slots.mean())
            if abs(figure) > MOST_FIGURE:
                raise PartsError("scoring-noise")
            figures.append(math.floor(figure / STEP + 0.5) * STEP)
        return {}, [np.array(figures, dtype="<f8").tobytes()]

    # -- parts of the above --------------------------------------------------------------------------------------------

    def _known(self) -> Any:
        if self._context is None:
            raise PartsError("scoring-key")
        return self._context

    def _seal(self) -> Any:
        return self._known().seal_context().data

    def _encryptor(self) -> Any:
        return sealapi.Encryptor(self._seal(), self._known().public_key().data)

    def _encoded(self, values: np.ndarray[Any, Any], scale: float, parms: Any) -> Any:
        """Values in all slots, over and over."""
        plain = sealapi.Plaintext()
        sealapi.CKKSEncoder(self._seal()).encode(np.tile(values, SLOTS // len(values)).tolist(), parms, scale, plain)
        return plain

    def _zero(self, scale: float) -> Any:
        made = sealapi.Ciphertext()
        self._encryptor().encrypt_zero(self._seal().first_parms_id(), made)
        made.scale = scale
        return made

    def _flooded(self, work: Any, one: Any) -> Any:
        work.add_inplace(one, self._zero(one.scale))
        work.add_plain_inplace(one, self._encoded(_gaussian(SLOTS) * FLOOD, one.scale, self._seal().first_parms_id()))
        return one

    def _ciphertext(self, data: bytes, scale: float) -> Any:
        found = sealapi.Ciphertext()
        found.load(self._seal(), self._file(data))
        if found.size() != 2 or found.scale != scale or found.parms_id() != self._seal().first_parms_id():
            raise PartsError("scoring-size")
        if found.is_transparent():
            raise PartsError("scoring-key")
        return found

    def _file(self, data: bytes) -> str:
        path = self._folder / "in"
        path.write_bytes(data)
        return str(path)

    def _bytes(self, made: Any) -> bytes:
        path = self._folder / "out"
        made.save(str(path))
        return path.read_bytes()


def _gaussian(count: int) -> np.ndarray[Any, Any]:
    """Normal values from the operating system's randomness (Box and Muller): a generator that runs backwards hides none."""
    words = np.frombuffer(os.urandom(16 * count), dtype="<u8").reshape(2, count)
    first, second = ((words >> 11) + 0.5) * 2.0**-53
    made: np.ndarray[Any, Any] = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * math.pi * second)
    return made


def _numbers(body: bytes) -> np.ndarray[Any, Any]:
    values = np.frombuffer(body, dtype="<f8")
    size = len(values)
    if not 1 <= size <= MOST_VALUES or size & (size - 1) or not np.isfinite(values).all():
        raise PartsError("scoring-size")
    return values


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    scoring = Scoring()
    serve(
        open_channel(),
        {name: getattr(scoring, name) for name in ("keys", "take", "encrypt", "evaluate", "open")},
        "scoring-format",
    )
    finish()
