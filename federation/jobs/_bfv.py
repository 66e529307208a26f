"""BFV under one set of parameters: what all keys have in common is made once, and each key is loaded against it.

The tables of a set of parameters take several times as long to make as a key takes to read, and TenSEAL makes them anew for
every context. Contexts and vectors are in TenSEAL's own form (its ``tensealcontext.proto`` and ``tensors.proto``), whoever wrote
them. TenSEAL's bindings of SEAL read and write keys by way of files: they lie in the session's own scratch, and are gone when
they were read.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tenseal
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tenseal import sealapi

_BYTES, _MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_UINT32, _DOUBLE = descriptor_pb2.FieldDescriptorProto.TYPE_UINT32, descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
_FORMS: dict[str, tuple[tuple[str, int, Any, str], ...]] = {
    "Private": (("secret_key", 1, _BYTES, ""),),
    "Public": (("public_key", 1, _BYTES, ""), ("auto_flags", 2, _UINT32, ""), ("scale", 3, _DOUBLE, "")),
    "Context": (
        ("encryption_parameters", 1, _BYTES, ""),
        ("public_context", 2, _MESSAGE, "Public"),
        ("private_context", 3, _MESSAGE, "Private"),
        ("encryption_type", 4, _UINT32, ""),
    ),
    "Vector": (("sizes", 1, _UINT32, "repeated"), ("ciphertexts", 2, _BYTES, "repeated")),
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="keyong/bfv.proto", package="keyong.bfv", syntax="proto3")
    for name, fields in _FORMS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, more in fields:
            one = message.field.add(name=field, number=number, type=kind)
            one.label = one.LABEL_REPEATED if more == "repeated" else one.LABEL_OPTIONAL
            if kind == _MESSAGE:
                one.type_name = f".keyong.bfv.{more}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"keyong.bfv.{name}")) for name in _FORMS}


_MESSAGES = _messages()
_ASYMMETRIC = 0


def read_context(body: bytes) -> Any:
    """A serialized context's parts, none of them looked into.

    Raises:
        ValueError: it is none, or one of a symmetric key.
    """
    try:
        told = _MESSAGES["Context"].FromString(body)
    except DecodeError:
        raise ValueError("not a context") from None
    if told.encryption_type != _ASYMMETRIC:
        raise ValueError("not a context of a key pair")
    return told


class Bfv:
    """What one set of parameters gives.

    Args:
        parameters: as TenSEAL serializes them.

    Attributes:
        context: TenSEAL's, without any key.
    """

    def __init__(self, parameters: bytes) -> None:
        self.parameters = parameters
        self.context: Any = tenseal.context_from(_written(parameters, b"", b""))
        self._seal = self.context.seal_context().data
        self._encoder = sealapi.BatchEncoder(self._seal)
        self._scratch = tempfile.TemporaryDirectory(prefix="bfv-")
        self._folder = Path(self._scratch.name)

    @classmethod
    def make(cls, degree: int, modulus: int, bits: list[int]) -> Bfv:
        """Of parameters in words."""
        known = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
        known.set_poly_modulus_degree(degree)
        known.set_coeff_modulus(sealapi.CoeffModulus.Create(degree, bits))
        known.set_plain_modulus(modulus)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "parameters")
            known.save(str(place))
            return cls(place.read_bytes())

    def keys(self) -> tuple[bytes, bytes]:
        """A fresh pair, as serialized contexts: with the public key alone, and with both."""
        maker = sealapi.KeyGenerator(self._seal)
        key = sealapi.PublicKey()
        maker.create_public_key(key)
        public, secret = self._saved(key), self._saved(maker.secret_key())
        return _written(self.parameters, public, b""), _written(self.parameters, public, secret)

    def encryptor(self, public: bytes) -> Any:
        """What encrypts under a serialized public key; raises where it is none of these parameters."""
        return sealapi.Encryptor(self._seal, self._loaded(sealapi.PublicKey(), public))

    def secret_key(self, secret: bytes) -> Any:
        """A serialized secret key; raises where it is none of these parameters."""
        return self._loaded(sealapi.SecretKey(), secret)

    def encrypt(self, encryptor: Any, elements: list[int]) -> bytes:
        """The serialized vector of as many elements as a ciphertext holds, or fewer; repeated to its end, as TenSEAL does."""
        plain, encrypted = sealapi.Plaintext(), sealapi.Ciphertext()
        count = self._seal.key_context_data().parms().poly_modulus_degree()
        self._encoder.encode(np.resize(np.array(elements, dtype=np.uint64), count).tolist(), plain)
        encryptor.encrypt(plain, encrypted)
        vector = _MESSAGES["Vector"](sizes=[len(elements)], ciphertexts=[self._saved(encrypted)])
        return bytes(vector.SerializeToString())

    def vector(self, data: bytes) -> Any:
        """TenSEAL's vector of its serialized form."""
        return tenseal.bfv_vector_from(self.context, data)

    def decrypt(self, secret: Any, vector: Any) -> tuple[list[int], int]:
        """A vector's elements, and how many bits of noise its ciphertext has left.

        Raises:
            ValueError: it has several ciphertexts: each that is made here has one.
        """
        (encrypted,) = vector.ciphertext()
        reader, plain = sealapi.Decryptor(self._seal, secret), sealapi.Plaintext()
        reader.decrypt(encrypted, plain)
        return self._encoder.decode_uint64(plain)[: vector.size()], reader.invariant_noise_budget(encrypted)

    def _saved(self, one: Any) -> bytes:
        place = self._folder / "saved"
        try:
            one.save(str(place))
            return place.read_bytes()
        finally:
            place.unlink(missing_ok=True)

    def _loaded(self, one: Any, data: bytes) -> Any:
        place = self._folder / "loaded"
        try:
            place.write_bytes(data)
            one.load(self._seal, str(place))
        finally:
            place.unlink(missing_ok=True)
        return one


def _written(parameters: bytes, public: bytes, secret: bytes) -> bytes:
    message = _MESSAGES["Context"](encryption_parameters=parameters, encryption_type=_ASYMMETRIC)
    message.public_context.public_key = public
    message.public_context.auto_flags = 7  # TenSEAL's default: relinearize, rescale, switch moduli
    message.public_context.scale = -1.0  # none
    if secret:
        message.private_context.secret_key = secret
    return bytes(message.SerializeToString())
