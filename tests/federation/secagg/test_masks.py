"""Masks: they hide, they cancel, and what is left of them after dropouts is taken away exactly."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import VerificationError
from federation.secagg import (
    Z32,
    Z64,
    Accumulator,
    AggregateVoidError,
    CohortError,
    Layout,
    MaskKey,
    PrimeRing,
    ShareError,
    add_masks,
    choose_encoding,
    dropouts,
    keystream,
    threshold,
)
from federation.secagg.shamir import PRIME, combine, split
from federation.statements import MASKED_COHORT, MetricSpec, StageOutput
from tests.federation.secagg.masked_cohort import OUTPUT, SENT, MaskedCohort, reply_of

PRIME_MODULUS = 1125899904679937
KEYS = [MaskKey(bytes([at] * 16), sign) for at, sign in ((1, 1), (2, -1), (3, 1))]
COHORTS: dict[tuple[int, int], MaskedCohort] = {}


def test_thresholds_are_those_of_the_design() -> None:
    assert [dropouts(n) for n in (3, 4, 5, 6, 7)] == [0, 1, 1, 1, 2]
    for n in range(3, 65):
        assert threshold(n) == 2 * n // 3 + 1
        assert 2 * threshold(n) > n


def test_a_cohort_of_one_two_or_more_than_messages_hold_is_refused() -> None:
    for n in (1, 2, MASKED_COHORT + 1):
        with pytest.raises(CohortError):
            MaskedCohort(n)


@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.integers(0, PRIME - 1),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=settings.default.max_examples // 5)
def test_any_threshold_shares_give_the_secret_and_fewer_another(size: Any, secret: int, random: Any) -> None:
    holders, needed = size
    shares = dict(enumerate(split(secret, needed, holders, secrets.randbelow), start=1))
    chosen = dict(random.sample(sorted(shares.items()), needed))
    assert combine(chosen, needed) == secret
    if needed > 1:
        fewer = dict(list(chosen.items())[:-1])
        with pytest.raises(ShareError):
            combine(fewer, needed)
        assert combine(fewer, needed - 1) != secret


@pytest.mark.parametrize("ring", [Z32, Z64, PrimeRing(PRIME_MODULUS), PrimeRing(2**31 - 1)])
@pytest.mark.parametrize("size", [0, 1, 3, 1000, 70_001])
def test_masks_cancel_exactly_in_every_ring_over_any_number_of_threads(ring: Any, size: int) -> None:
    modulus = ring.modulus if isinstance(ring, PrimeRing) else 2**ring.bits
    plain = np.random.default_rng(size).integers(0, modulus, size=size, dtype=np.uint64).astype(ring.dtype)
    small = np.arange(5, dtype=np.uint64)
    vectors = [plain.copy(), small.copy()]
    pairs = list(zip(vectors, (ring, Z64), strict=True))
    add_masks(pairs, KEYS, threads=3)
    if size > 3:
        assert not np.any(vectors[0][:4] == plain[:4])
    assert int(vectors[0].max(initial=0)) < modulus
    one = [plain.copy(), small.copy()]
    add_masks(list(zip(one, (ring, Z64), strict=True)), KEYS, threads=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, vectors, strict=True))
    add_masks(pairs, [MaskKey(key.key, -key.sign) for key in KEYS], threads=2)
    assert np.array_equal(vectors[0], plain)
    assert np.array_equal(vectors[1], small)


@pytest.mark.parametrize("sizes", [(1,), (7, 5), (8, 9, 3), (70_001, 2), (131_073, 65_536, 1)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("wide", [True, False])
def test_masks_are_the_keystream_of_the_counter_mode_however_it_is_made(
    sizes: tuple[int, ...], threads: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystream, "_gcm_is_faster", lambda: wide)
    vectors = [np.zeros(size, dtype="<u4") for size in sizes]
    add_masks([(vector, Z32) for vector in vectors], KEYS, threads=threads)
    block = 0
    for vector in vectors:
        expected = np.zeros(len(vector), dtype="<u4")
        for key in KEYS:
            counting = Cipher(algorithms.AES(key.key), modes.CTR(block.to_bytes(16, "big"))).encryptor()
            expected += np.uint32(key.sign % 2**32) * np.frombuffer(counting.update(bytes(vector.nbytes)), dtype="<u4")
        assert np.array_equal(vector, expected)
        block += -(-vector.nbytes // 16)


def test_beyond_the_32_bits_of_gcms_counter_the_keystream_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "_gcm_is_faster", lambda: True)
    vector = np.zeros(100_000, dtype="<u4")
    made: list[bytes] = []
    from_second_block = keystream._from_second_block
    monkeypatch.setattr(keystream, "_from_second_block", lambda key: made.append(key) or from_second_block(key))
    add_masks([(vector, Z32)], KEYS[:1])
    assert made == [KEYS[0].key]
    monkeypatch.setattr(keystream, "GCM_BLOCKS", 1 << 12)
    again = np.zeros(100_000, dtype="<u4")
    add_masks([(again, Z32)], KEYS[:1])
    assert made == [KEYS[0].key]
    assert np.array_equal(vector, again)


def test_a_prime_ring_reduces_words_as_python_does() -> None:
    vector = np.zeros(64, dtype=np.uint64)
    raw = np.zeros(128, dtype=np.uint64)
    add_masks([(vector, PrimeRing(PRIME_MODULUS))], KEYS[:1])
    add_masks([(raw, Z64)], KEYS[:1])
    words = [int(raw[2 * at]) + (int(raw[2 * at + 1]) << 64) for at in range(64)]
    assert [int(value) for value in vector] == [word % PRIME_MODULUS for word in words]


def _cohort(n: int) -> MaskedCohort:
    # keys take most of the time, and each round has its own: one set-up serves many examples
    number = COHORTS.setdefault((n, 0), MaskedCohort(n, rounds=32))
    return number


_USED: dict[int, int] = {}


def _next_round(n: int) -> tuple[MaskedCohort, int]:
    used = _USED.get(n, 0)
    if used == 32:
        COHORTS.pop((n, 0))
        used = 0
    _USED[n] = used + 1
    return _cohort(n), used + 1


@st.composite
def _rounds(draw: Any) -> Any:
    n = draw(st.integers(3, 9))
    names = [f"n{at:02}" for at in range(n)]
    gone = draw(st.lists(st.sampled_from(names), unique=True, max_size=dropouts(n)))
    left = [name for name in names if name not in gone]
    silent = draw(st.lists(st.sampled_from(left), unique=True, max_size=len(left) - threshold(n)))
    dtypes = draw(st.lists(st.sampled_from(["f2", "f4", "f8", "i8", "u1", "?"]), min_size=1, max_size=3))
    shapes = [tuple(draw(st.lists(st.integers(0, 5), max_size=3))) for _ in dtypes]
    weights = [draw(st.integers(10, 100)) for _ in left]
    return n, left, silent, list(zip(dtypes, shapes, strict=True)), weights, draw(st.sampled_from(["z32", "z64"]))


@given(_rounds())
@settings(deadline=None, max_examples=settings.default.max_examples // 5)
def test_inv5_a_masked_sum_is_the_plain_sum_to_the_last_bit_whoever_vanishes(drawn: Any) -> None:
    n, left, silent, forms, weights, ring = drawn
    sent = {"arrays": {f"a{at}": np.zeros(shape, dtype=dtype) for at, (dtype, shape) in enumerate(forms)}}
    layout = Layout.derive(sent, StageOutput(sent=True, metrics=(MetricSpec(name="loss"),)))
    encoding = choose_encoding([(10, 100)] * n)
    if ring == "z64":
        encoding = encoding.model_copy(update={"ring": "z64", "fraction_bits": 40})
    plain = Accumulator(layout, encoding, n)
    replies = {}
    for at, (name, weight) in enumerate(zip(left, weights, strict=True)):
        plain.add(reply_of(at, layout, encoding, n, weight, sent))
        replies[name] = reply_of(at, layout, encoding, n, weight, sent)
    cohort, number = _next_round(n)
    masked = cohort.run(replies, layout, encoding, sent, number=number, silent=silent)
    expected = plain.finish(len(left), sent)
    assert (masked.count, masked.total_weight, masked.saturated) == (len(left), sum(weights), expected.saturated)
    assert masked.metrics == expected.metrics
    for name, array in expected.arrays["arrays"].items():
        assert np.array_equal(masked.arrays["arrays"][name], array)


def test_a_masked_vector_says_nothing_of_what_it_covers() -> None:
    layout = Layout.derive(SENT, OUTPUT)
    encoding = choose_encoding([(10, 100)] * 3)
    cohort = MaskedCohort(3, rounds=32)
    bits = []
    for number in range(1, 33):
        reply = reply_of(1, layout, encoding, 3, 50)
        cohort.mask("n00", reply, cohort.context(number))
        bits.append(
            np.unpackbits(np.concatenate([one.view(np.uint8) for one in (reply.totals, reply.wide, reply.narrow)]))
        )
    shares = np.mean(bits, axis=0)
    # of the same reply under 32 masks each bit is 1 about half the time; that one of 1,984 never changes has chance 1e-6
    assert shares.min() > 0
    assert shares.max() < 1
    assert abs(float(shares.mean()) - 0.5) < 0.01


def test_a_mask_that_stays_voids_the_round() -> None:
    layout = Layout.derive(SENT, OUTPUT)
    encoding = choose_encoding([(10, 100)] * 4)
    cohort = MaskedCohort(4)
    total = Accumulator(layout, encoding, 4)
    for name in cohort.scope.participants:
        reply = reply_of(1, layout, encoding, 4, 50)
        cohort.mask(name, reply, cohort.context())
        total.add(reply)
    with pytest.raises(AggregateVoidError):
        total.finish(4, SENT)


def test_different_contents_leave_masks_that_do_not_cancel() -> None:
    """Different models or configs for different nodes: the sum opens to nothing (and no node would have signed on)."""
    layout = Layout.derive(SENT, OUTPUT)
    encoding = choose_encoding([(10, 100)] * 3)
    cohort = MaskedCohort(3)
    total = Accumulator(layout, encoding, 3)
    inputs = []
    for at, name in enumerate(cohort.scope.participants):
        context = cohort.context(content="sha256:" + ("a" if at == 2 else "b") * 64)
        reply = reply_of(at, layout, encoding, 3, 50)
        inputs.append(cohort.mask(name, reply, context))
        total.add(reply)
    context = cohort.context(content="sha256:" + "b" * 64)
    survivors = cohort.survivor_set(cohort.scope.participants, context)
    with pytest.raises(VerificationError, match="another cohort, round or content"):
        cohort.acknowledge("n00", survivors, inputs, context)
