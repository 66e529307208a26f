"""Our noise against the discrete Gaussian's own probabilities and against OpenDP's sampler."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from federation.errors import UsageError
from federation.noise import TABLE_DISTANCE, TABLE_FROM, Keystream, discrete_gaussian, table_gaussian
from federation.noise import gaussian as by_size
from federation.noise.table import TABLE_VARIANCE, _levels, _table
from federation.privacy import TRUNCATION_RESERVE

LEAST_P = 1e-9
"""A right sampler fails so once in a thousand million runs of a test; a wrong one fails by hundreds of orders."""
KEY = bytes(range(32))
"""Of ours, which are the same at each run; OpenDP's cannot be."""
VARIANCES = [Fraction(1, 2), Fraction(100, 3), Fraction(10_000), Fraction(TABLE_VARIANCE) + 1, Fraction(10**7)]


def chi_square(values: np.ndarray, variance: Fraction) -> float:
    """The p-value of these values as discrete Gaussian ones, in bins of equal probability where there are many values."""
    reach = math.ceil(9 * math.sqrt(variance)) + 2
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-(support.astype(float) ** 2) / (2 * float(variance)))
    below = np.cumsum(weights / weights.sum())
    edges = np.unique(np.searchsorted(below, np.linspace(0.01, 0.99, 60)))
    expected = np.diff(np.concatenate([[0.0], below[edges], [1.0]])) * len(values)
    observed = np.bincount(np.searchsorted(support[edges], values), minlength=len(expected))
    kept = expected > 20
    expected = np.append(expected[kept], expected[~kept].sum() + 1e-9)
    observed = np.append(observed[kept], observed[~kept].sum())
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_tables_draw_the_discrete_gaussian(variance: Fraction) -> None:
    assert chi_square(table_gaussian(400_000, variance, Keystream(KEY), threads=1), variance) > LEAST_P


@pytest.mark.parametrize("variance", [Fraction(100, 3), Fraction(10**7)], ids=str)
def test_tables_draw_what_opendp_draws(variance: Fraction) -> None:
    theirs = discrete_gaussian(20_000, variance)  # below TABLE_FROM: OpenDP's
    ours = table_gaussian(200_000, variance, Keystream(KEY), threads=1)
    assert stats.ks_2samp(ours, theirs, method="asymp").pvalue > LEAST_P
    assert chi_square(theirs, variance) > LEAST_P


def test_the_test_itself_tells_a_hundredth_of_the_variance() -> None:
    """Without this a test that cannot fail would look the same."""
    drawn = table_gaussian(400_000, Fraction(103), Keystream(KEY), threads=1)
    assert chi_square(drawn, Fraction(100)) < LEAST_P


def test_short_vectors_are_opendps_and_long_ones_from_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(by_size, "_measurement", lambda scale: lambda zeros: asked.append(len(zeros)) or zeros)
    discrete_gaussian(TABLE_FROM - 1, 100)
    long = discrete_gaussian(TABLE_FROM, 100)
    assert asked == [TABLE_FROM - 1]
    assert np.any(long)


def test_the_scale_that_opendp_gets_is_never_too_small() -> None:
    for variance in (Fraction(100, 3), Fraction(2), Fraction(10**30 + 1), Fraction(1, 3)):
        assert Fraction(by_size._scale(variance)) ** 2 >= variance
        assert by_size._scale(variance) == pytest.approx(math.sqrt(variance), rel=1e-15)


@pytest.mark.parametrize("variance", [*VARIANCES, Fraction(2**70, 3), Fraction(by_size.LARGEST_VARIANCE)], ids=str)
def test_what_a_variance_is_put_together_from_adds_up(variance: Fraction) -> None:
    levels = _levels(variance)
    assert sum(factor**2 * part for factor, part in levels) == variance
    assert all(part <= TABLE_VARIANCE for _, part in levels)
    for place, (factor, part) in enumerate(levels[:-1]):
        rest = sum(f**2 * p for f, p in levels[place + 1 :])
        wide = 1 / (Fraction(factor**2) / rest + 1 / part)  # t of the module's docstring
        assert 2 * math.exp(-2 * math.pi**2 * float(wide)) < 2.0**-400


def test_a_tables_distance_is_what_is_charged() -> None:
    """Tail and rounded thresholds of the widest table, exactly; at eight levels they stay below the bound."""
    table = _table(Fraction(TABLE_VARIANCE))
    tail = 2 * math.erfc(table.reach / math.sqrt(2 * TABLE_VARIANCE))
    rounded = Fraction(2 * table.reach + 1, 2**128)
    assert 8 * (Fraction(tail) + rounded) < TABLE_DISTANCE
    # and what is set aside of each delta covers 2^52 values at an epsilon of 12
    assert float(2**52 * TABLE_DISTANCE) * (1 + math.exp(12)) < TRUNCATION_RESERVE


def test_equal_upper_halves_are_told_apart_by_the_lower() -> None:
    table = _table(Fraction(1, 2))
    place = table.reach  # the threshold between -1 and 0

    class Fixed:
        def __init__(self, lower: int) -> None:
            self.left = [table.exact[place] >> 64, lower]

        def words(self, count: int) -> np.ndarray:
            assert count == 1
            return np.array([self.left.pop(0)], dtype=np.uint64)

    lower = table.exact[place] & (2**64 - 1)
    assert int(table.draw(1, Fixed(lower))[0]) == 1 + int(table.draw(1, Fixed(lower - 1))[0])  # type: ignore[arg-type]


def test_the_same_keystream_gives_the_same_noise_over_any_threads_of_it() -> None:
    """A known answer: another order of levels or halves would be another distribution of what was tested above."""
    noise = table_gaussian(70_000, Fraction(10**7), Keystream(bytes(32)), threads=2)
    assert np.array_equal(noise, table_gaussian(70_000, Fraction(10**7), Keystream(bytes(32)), threads=2))
    assert len(np.unique(noise[:35_000] - noise[35_000:])) > 10_000  # threads draw from keystreams of their own
    assert (
        hashlib.sha256(noise.tobytes()).hexdigest()
        == "fe2f00d7f0bb406efb8d5368deeaf3e730d97fcb917cd3fbba6164479a79c7cf"
    )


def test_noise_is_fresh_each_time() -> None:
    assert not np.array_equal(discrete_gaussian(TABLE_FROM, 10**6), discrete_gaussian(TABLE_FROM, 10**6))
    assert not np.array_equal(discrete_gaussian(100, 10**6), discrete_gaussian(100, 10**6))


@pytest.mark.parametrize("variance", [0, -1, 2**90 + 1])
def test_a_variance_that_is_none_is_refused(variance: int) -> None:
    with pytest.raises(UsageError):
        discrete_gaussian(1, variance)


def test_no_values_need_no_noise() -> None:
    assert discrete_gaussian(0, 1).size == 0


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(100, 3), Fraction(TABLE_VARIANCE)], ids=str)
def test_the_guide_finds_what_a_search_finds(variance: Fraction) -> None:
    """Random words, the thresholds themselves and their neighbours, and the ends."""
    table = _table(variance)
    own = table.high[:-1].astype(object)
    near = [int(one) + step for one in own[:: max(1, len(own) // 500)] for step in (-1, 1)]
    ends = [0, 1, 2**64 - 1, 2**64 - 2]
    words = np.array([w for w in (*near, *ends) if 0 <= w < 2**64], dtype=np.uint64)
    words = np.concatenate([words[~np.isin(words, table.high[:-1])], Keystream(bytes(32)).words(50_000)])

    class Given:
        def words(self, count: int) -> np.ndarray:
            assert count == len(words)
            return words

    found = table.draw(len(words), Given())  # type: ignore[arg-type]
    expected = np.searchsorted(table.high[:-1], words, side="right") - table.reach
    assert np.array_equal(found, expected)
    assert found.max() <= table.reach and found.min() >= -table.reach
