"""The encryption of answers: its one adapter, what it refuses, and what those who hold ciphertexts see of a sum."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
import tenseal
from tenseal import sealapi

from federation.jobs._bfv import read_context
from federation.jobs.cipher import DEGREE, MODULUS, NOISE_MARGIN, Cipher, CipherError
from federation.query import RING, SLOTS, QueryVoidError, pack_parts, seal_flags, unpack_parts
from federation.query.ring import MODULUS as RING_MODULUS
from federation.secagg import MaskKey, add_masks

DIGEST = "sha256:" + "0" * 64


def elements(values: Any) -> bytes:
    return np.asarray(values, dtype="<u8").tobytes()


def opened(context: bytes, *, secret: bool = False) -> Cipher:
    cipher = Cipher()
    cipher.context({"secret": secret}, context)
    return cipher


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    _, (public, secret) = Cipher().keys({}, b"")
    return public, secret


def summed(public: bytes, vectors: list[Any], correction: Any) -> tuple[list[int], bytes]:
    """What a coordinator makes of several nodes' ciphertexts."""
    total = opened(public)
    for vector in vectors:
        told, parts = opened(public).encrypt({}, elements(vector))
        total.add({"sizes": told["sizes"]}, b"".join(parts))
    told, parts = total.finish({}, elements(correction))
    return list(told["sizes"]), b"".join(parts)  # type: ignore[call-overload]


def test_sums_of_masked_vectors_open_to_the_integer_sum(keys: tuple[bytes, bytes]) -> None:
    """Ten nodes, more elements than one ciphertext holds, masks that the coordinator's plaintext takes away."""
    public, secret = keys
    make = np.random.default_rng(1)
    plain = [make.integers(0, MODULUS, SLOTS + 5, dtype=np.uint64) for _ in range(10)]
    masks = [MaskKey(secrets.token_bytes(16), 1) for _ in plain]
    masked = []
    for vector, key in zip(plain, masks, strict=True):
        covered = vector.copy()
        add_masks([(covered, RING)], [key])
        masked.append(covered)
    correction = np.zeros(SLOTS + 5, dtype=np.uint64)
    add_masks([(correction, RING)], [MaskKey(key.key, -1) for key in masks])
    sizes, body = summed(public, masked, correction)
    assert len(sizes) == 2
    _, (found,) = opened(secret, secret=True).decrypt({"sizes": sizes}, body)
    wanted = [sum(int(one[at]) for one in plain) % MODULUS for at in range(SLOTS + 5)]
    assert np.frombuffer(found, dtype="<u8").tolist() == wanted
    assert MODULUS == RING_MODULUS and DEGREE == SLOTS


def test_a_thousand_additions_leave_noise_to_spare(keys: tuple[bytes, bytes]) -> None:
    _, secret = keys
    context = tenseal.context_from(secret)
    one = tenseal.bfv_vector(context, [1, 2, 3])
    total = one.copy()
    for _ in range(1000):
        total.add_(one)
    reader = sealapi.Decryptor(context.seal_context().data, context.secret_key().data)
    assert reader.invariant_noise_budget(total.ciphertext()[0]) > NOISE_MARGIN + 20
    assert total.decrypt() == [1001, 2002, 3003]


@pytest.mark.parametrize(
    ("degree", "modulus", "bits"),
    [
        (4096, 1125899904679937, [36, 36, 36]),
        (8192, 1125899903991809, [60, 60, 60]),
        (8192, 1125899904679937, [60, 50, 60]),
        (16384, 1125899904679937, [60, 60, 60]),
    ],
)
def test_other_parameters_are_refused(degree: int, modulus: int, bits: list[int]) -> None:
    try:
        context = tenseal.context(
            tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=degree, plain_modulus=modulus, coeff_mod_bit_sizes=bits
        )
    except (ValueError, RuntimeError):
        pytest.skip("no such context can be made at all")
    with pytest.raises(CipherError) as caught:
        opened(context.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False))
    assert caught.value.code == "cipher-parameters"


def test_a_context_with_its_secret_key_is_refused_where_none_is_wanted(keys: tuple[bytes, bytes]) -> None:
    public, secret = keys
    with pytest.raises(CipherError) as caught:
        opened(secret)
    assert caught.value.code == "cipher-key"
    with pytest.raises(CipherError):
        opened(public, secret=True)
    with pytest.raises(CipherError):
        opened(public).decrypt({"sizes": [1]}, b"x")


def test_known_parameters_let_no_other_pass(keys: tuple[bytes, bytes]) -> None:
    """A session that has its tables judges each further context anew, and holds no key after one that it refused."""
    public, _ = keys
    small = tenseal.context(
        tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=4096, plain_modulus=1032193, coeff_mod_bit_sizes=[36, 36, 37]
    )
    foreign = small.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    session = opened(public)
    with pytest.raises(CipherError) as caught:
        session.context({}, foreign)
    assert caught.value.code == "cipher-parameters"
    with pytest.raises(CipherError) as caught:
        session.encrypt({}, elements([1]))
    assert caught.value.code == "cipher-key"
    mixed = read_context(public)
    mixed.public_context.public_key = read_context(foreign).public_context.public_key
    session.context({}, public)
    with pytest.raises(RuntimeError):  # a key of other parameters under the right ones
        session.context({}, mixed.SerializeToString())
    with pytest.raises(CipherError):
        session.encrypt({}, elements([1]))


def test_each_pair_is_fresh_and_one_session_serves_one_after_the_other() -> None:
    maker, node, asker = Cipher(), Cipher(), Cipher()
    pairs = [maker.keys({}, b"")[1] for _ in range(3)]
    assert len({one for pair in pairs for one in pair}) == 6
    for public, secret in pairs:
        node.context({}, public)
        asker.context({"secret": True}, secret)
        told, parts = node.encrypt({}, elements([4, 5]))
        _, (found,) = asker.decrypt({"sizes": told["sizes"]}, parts[0])
        assert np.frombuffer(found, dtype="<u8").tolist() == [4, 5]
    asker.context({"secret": True}, pairs[0][1])
    with pytest.raises(CipherError):  # the pair before opens nothing of this one's
        asker.decrypt({"sizes": told["sizes"]}, parts[0])


def test_contexts_and_vectors_are_tenseals_own(keys: tuple[bytes, bytes]) -> None:
    """What TenSEAL writes is taken here, what is written here TenSEAL takes, slot for slot."""
    public, secret = keys
    theirs = tenseal.context_from(secret)
    _, parts = opened(public).encrypt({}, elements([7, 8, 9]))
    assert tenseal.bfv_vector_from(theirs, parts[0]).decrypt() == [7, 8, 9]
    vector = tenseal.bfv_vector(theirs, [1, 2, 3])
    reader = sealapi.Decryptor(theirs.seal_context().data, theirs.secret_key().data)
    shown = []
    for one in (vector, tenseal.bfv_vector_from(theirs, parts[0])):
        plain = sealapi.Plaintext()
        reader.decrypt(one.ciphertext()[0], plain)
        shown.append(sealapi.BatchEncoder(theirs.seal_context().data).decode_uint64(plain))
    assert shown == [([1, 2, 3] * DEGREE)[:DEGREE], ([7, 8, 9] * DEGREE)[:DEGREE]]
    cipher = opened(theirs.serialize(save_secret_key=True), secret=True)
    _, (found,) = cipher.decrypt({"sizes": [len(vector.serialize())]}, vector.serialize())
    assert np.frombuffer(found, dtype="<u8").tolist() == [1, 2, 3]
    with pytest.raises(ValueError):
        read_context(b"no context")
    symmetric = read_context(public)
    symmetric.encryption_type = 1
    with pytest.raises(ValueError):
        opened(symmetric.SerializeToString())


def test_another_key_opens_nothing(keys: tuple[bytes, bytes]) -> None:
    """A coordinator that puts its own context in place of the asker's gets ciphertexts that open to nothing of the sum."""
    public, _ = keys
    _, (_, foreign) = Cipher().keys({}, b"")
    told, parts = opened(public).encrypt({}, elements([7, 8, 9]))
    with pytest.raises(CipherError) as caught:
        opened(foreign, secret=True).decrypt({"sizes": told["sizes"]}, b"".join(parts))
    assert caught.value.code == "cipher-noise"


def test_what_is_no_vector_is_not_added(keys: tuple[bytes, bytes]) -> None:
    public, _ = keys
    total = opened(public)
    told, parts = opened(public).encrypt({}, elements([1, 2, 3]))
    total.add({"sizes": told["sizes"]}, b"".join(parts))
    other, more = opened(public).encrypt({}, elements([1, 2]))
    for sizes, body in ((other["sizes"], b"".join(more)), ([5], b"x"), ([], b""), (told["sizes"], b"x")):
        with pytest.raises(CipherError):
            total.add({"sizes": sizes}, body)
    with pytest.raises(CipherError):
        opened(public).encrypt({}, elements([MODULUS]))


def test_ciphertexts_travel_in_one_form() -> None:
    parts = [b"abc", b"d" * 100]
    assert [bytes(one) for one in unpack_parts(b"".join(pack_parts(parts)))] == parts
    for wrong in (b"", b"\x00" * 4, b"\xff" * 40, b"".join(pack_parts(parts))[:-1], b"".join(pack_parts(parts)) + b"x"):
        with pytest.raises(QueryVoidError):
            unpack_parts(wrong)


def transcript(inputs: list[Any], make: np.random.Generator) -> list[Any]:
    """Everything that a coordinator holds of the flags of some nodes: each masked vector, and the sum without masks."""
    common = make.bytes(32)
    keys = {pair: make.bytes(16) for pair in ((0, 1), (0, 2), (1, 2))}
    held, total = [], np.zeros(2 * (len(inputs[0]) + 1), dtype=np.uint64)
    for node, flags in enumerate(inputs):
        vector = seal_flags(flags, common, DIGEST)
        mine = [MaskKey(key, 1 if node == pair[0] else -1) for pair, key in keys.items() if node in pair]
        add_masks([(vector, RING)], mine)
        held.append(vector)
        total = (total + vector) % np.uint64(MODULUS)
    return [*held, total]


def test_inv5_a_coordinators_transcript_depends_on_no_input() -> None:
    """Two sets of flags, even with other sums: vectors and sum have one distribution, uniform over Z_t, and one size."""
    from scipy import stats

    first = [[True] * 400, [True] * 400, [True] * 400]
    second = [[True] * 400, [False] * 400, [False] * 400]
    make = np.random.default_rng(3)
    for one, other in zip(transcript(first, make), transcript(second, make), strict=True):
        assert one.nbytes == other.nbytes
        for values in (one, other):
            assert stats.kstest(values / MODULUS, "uniform").pvalue > 1e-6
        assert stats.ks_2samp(one, other).pvalue > 1e-6
    # weakened copy: without the nodes' common keystream the sum is there to be read
    plain = np.array(first, dtype=np.uint64).sum(axis=0) % np.uint64(MODULUS)
    assert stats.kstest(plain / MODULUS, "uniform").pvalue < 1e-6
