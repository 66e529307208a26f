"""The encryption of a score: its one adapter, what it refuses, what its ciphertexts and its opening give away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tenseal
from tenseal import sealapi

from federation.jobs._parts import PartsError, parts_of
from federation.jobs.scoring import FLOOD, MOMENT_SCALE, SLOTS, STEP, Scoring

Keys = tuple[bytes, bytes, bytes]


def numbers(values: Any) -> bytes:
    return np.asarray(values, dtype="<f8").tobytes()


@pytest.fixture(scope="module")
def keys() -> Keys:
    _, (public, rotations, secret) = Scoring().keys({}, [])
    return public, rotations, secret


def session(*context: bytes, secret: bool = False) -> Scoring:
    one = Scoring()
    one.take({"secret": secret}, list(context))
    return one


def evaluated(keys: Keys, coefficients: Any, moments: Any) -> list[bytes]:
    node = session(keys[0], keys[1])
    _, (model,) = node.encrypt({}, [numbers(coefficients)])
    return node.evaluate({}, [model, numbers(moments)])[1]


def opened(keys: Keys, parts: list[bytes]) -> tuple[float, float]:
    _, (figures,) = session(keys[2], secret=True).open({}, parts)
    total, count = np.frombuffer(figures, dtype="<f8").tolist()
    return total, count


def slots(keys: Keys, part: bytes) -> np.ndarray[Any, Any]:
    """What the key's owner could see without the session: every slot as it decrypts."""
    one = session(keys[2], secret=True)
    plain = sealapi.Plaintext()
    reader = sealapi.Decryptor(one._seal(), one._known().secret_key().data)
    reader.decrypt(one._ciphertext(part, 2.0**105), plain)
    return np.array(sealapi.CKKSEncoder(one._seal()).decode_double(plain))


@pytest.mark.parametrize("size", [2, 16, 512])
def test_a_result_opens_to_the_sum_and_the_first_moment(keys: Keys, size: int) -> None:
    make = np.random.default_rng(size)
    coefficients, moments = make.uniform(-8, 8, size), make.uniform(-1, 1, size)
    total, count = opened(keys, evaluated(keys, coefficients, moments))
    assert total == pytest.approx(float(coefficients @ moments), abs=3e-5)
    assert count == pytest.approx(moments[0], abs=3e-5)
    assert (total / STEP).is_integer() and (count / STEP).is_integer()


def test_every_slot_holds_the_sum_and_none_a_part(keys: Keys) -> None:
    """Attack: the key's owner decrypts all slots by itself. They differ by the flood alone, and say nothing of a single moment.

    Weakened copy: without rotations each slot holds one moment times its coefficient.
    """
    coefficients, moments = np.full(16, 2.0), np.linspace(0.1, 0.9, 16)
    for part in evaluated(keys, coefficients, moments):
        found = slots(keys, part)
        # of so many, one lies beyond 8 deviations once in 10^11 runs
        assert len(found) == SLOTS and np.abs(found - found.mean()).max() < 8 * FLOOD
        assert found.std() == pytest.approx(FLOOD, rel=0.1)
    node = session(keys[0], keys[1])
    _, (model,) = node.encrypt({}, [numbers(coefficients)])
    work, one = sealapi.Evaluator(node._seal()), node._ciphertext(model, 2.0**65)
    work.multiply_plain_inplace(one, node._encoded(moments, MOMENT_SCALE, node._seal().first_parms_id()))
    assert slots(keys, node._bytes(one))[:16] == pytest.approx(2 * moments, abs=1e-6)


def test_the_same_result_never_looks_the_same_and_errors_are_flooded(keys: Keys) -> None:
    """Two results of one model on the same moments: other ciphertexts, and errors that differ by the flood."""
    node = session(keys[0], keys[1])
    _, (model,) = node.encrypt({}, [numbers([1.0, 2.0])])
    first, second = (node.evaluate({}, [model, numbers([0.5, 0.25])])[1][0] for _ in range(2))
    assert first != second
    gap = slots(keys, first) - slots(keys, second)
    assert gap.std() == pytest.approx(FLOOD * np.sqrt(2), rel=0.1)


def test_the_weights_are_readable_to_nobody_at_the_node(keys: Keys) -> None:
    """Attack: the node opens the model with all it was given. Weakened copy: a context with its secret key in it reads it."""
    node = session(keys[0], keys[1])
    _, (model,) = node.encrypt({}, [numbers([3.25, -1.5])])
    with pytest.raises(PartsError) as caught:
        node.open({}, [model, model])
    assert caught.value.code == "scoring-key"
    context = tenseal.context_from(keys[0])
    assert not context.has_secret_key()
    # somebody else's key opens it to nothing of the weights
    _, (_, _, foreign) = Scoring().keys({}, [])
    wrong = session(foreign, secret=True)
    plain = sealapi.Plaintext()
    sealapi.Decryptor(wrong._seal(), wrong._known().secret_key().data).decrypt(wrong._ciphertext(model, 2.0**65), plain)
    read = np.array(sealapi.CKKSEncoder(wrong._seal()).decode_double(plain))
    assert np.abs(read[:2] - [3.25, -1.5]).max() > 1e6
    asker = session(keys[2], secret=True)
    sealapi.Decryptor(asker._seal(), asker._known().secret_key().data).decrypt(asker._ciphertext(model, 2.0**65), plain)
    read = np.array(sealapi.CKKSEncoder(asker._seal()).decode_double(plain))
    assert read[:2] == pytest.approx([3.25, -1.5], abs=1e-6)
    # and a node does not take such a context
    with pytest.raises(PartsError):
        session(keys[2], keys[1])


def equation_in_the_key(context: Any, cipher: Any, published: list[complex]) -> bool:
    """Li and Micciancio's attack (eprint 2020/1533): whether what was published makes ``c0 + c1 s = m`` an exact equation in the
    secret key ``s``; then ``s = (m - c0) / c1``, one division a coefficient."""
    inner = context.seal_context().data
    encoded, left = sealapi.Plaintext(), sealapi.Plaintext()
    sealapi.CKKSEncoder(inner).encode(published, cipher.parms_id(), cipher.scale, encoded)
    rest = sealapi.Ciphertext()
    sealapi.Evaluator(inner).sub_plain(cipher, encoded, rest)
    sealapi.Decryptor(inner, context.secret_key().data).decrypt(rest, left)
    return bool(left.is_zero())


def test_publishing_a_result_does_not_publish_the_key(keys: Keys) -> None:
    """What the session gives away is two rounded figures: no equation in the key. The weakened copy publishes all slots."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    context.global_scale = 2.0**40
    cipher = tenseal.ckks_vector(context, [1.5, 2.5, -0.25]).ciphertext()[0]
    plain = sealapi.Plaintext()
    sealapi.Decryptor(context.seal_context().data, context.secret_key().data).decrypt(cipher, plain)
    raw = sealapi.CKKSEncoder(context.seal_context().data).decode_complex(plain)
    assert equation_in_the_key(context, cipher, list(raw))
    ours = tenseal.context_from(keys[2])
    (part, _) = parts = evaluated(keys, [1.0, 2.0], [0.5, 0.25])
    total, _ = opened(keys, parts)
    reader = session(keys[2], secret=True)
    assert not equation_in_the_key(ours, reader._ciphertext(part, 2.0**105), [complex(total)] * SLOTS)


def test_a_session_opens_once_and_what_it_did_not_make_never(keys: Keys) -> None:
    parts = evaluated(keys, [1.0, 2.0], [0.5, 0.25])
    asker = session(keys[2], secret=True)
    asker.open({}, parts)
    with pytest.raises(PartsError):
        asker.open({}, parts)
    # a ciphertext whose slots differ was not summed: nothing of it is said
    node = session(keys[0], keys[1])
    plain = node._encoded(np.array([1.0, 2.0]), 2.0**105, node._seal().first_parms_id())
    made = sealapi.Ciphertext()
    node._encryptor().encrypt(plain, made)
    with pytest.raises(PartsError) as caught:
        session(keys[2], secret=True).open({}, [node._bytes(made), parts[1]])
    assert caught.value.code == "scoring-noise"


def test_other_parameters_and_other_bytes_are_refused(keys: Keys) -> None:
    leave_out = {"save_secret_key": False, "save_galois_keys": False, "save_relin_keys": False}
    for scheme, more in (
        (tenseal.SCHEME_TYPE.CKKS, {"coeff_mod_bit_sizes": [60, 40, 60]}),
        (tenseal.SCHEME_TYPE.BFV, {"coeff_mod_bit_sizes": [60, 60, 60], "plain_modulus": 1125899904679937}),
    ):
        context = tenseal.context(scheme, poly_modulus_degree=8192, **more)
        with pytest.raises(PartsError) as caught:
            session(context.serialize(**leave_out))
        assert caught.value.code == "scoring-parameters"
    node = session(keys[0], keys[1])
    _, (model,) = node.encrypt({}, [numbers([1.0, 2.0])])
    for wrong in ([model], [model, numbers([1.0, 2.0, 3.0])], [model, numbers([np.nan, 1.0])], [model, b"x"]):
        with pytest.raises((PartsError, ValueError)):
            node.evaluate({}, wrong)
    with pytest.raises(PartsError):
        parts_of({"sizes": [3, 4]}, b"123456")
    with pytest.raises(PartsError):
        parts_of({"sizes": [-1, 7]}, b"123456")
