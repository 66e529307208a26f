"""Attacks on queries: each fails against the code as it is, and succeeds where the step it attacks is weakened.

The attacker is the asker, together with the coordinator unless a test says otherwise; what it wants is one row, one privacy
unit, or one company's part.
"""

from __future__ import annotations

import secrets
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from enterprise_node import budgets
from federation.crypto import SigningKey
from federation.errors import VerificationError
from federation.jobs.cipher import Cipher
from federation.noise import discrete_gaussian
from federation.query import (
    MODULUS,
    RING,
    SLOTS,
    CellEvidence,
    Private,
    VectorLayout,
    cell_statement,
    contributes,
    decode_answer,
    draw_noise,
    encode_cells,
    encode_noised,
    opened,
    pack_parts,
    plan_of,
    query_micro_rho,
    read_rows,
    seal_flags,
)
from federation.query.disclosure import is_safe
from federation.query.front import common_columns, parse_question
from federation.query.noising import releases, share_variance
from federation.secagg import MaskKey, add_masks
from federation.statements import Column, JobPlan, OutputSchema, PlannedDataset, StageOutput
from federation.statements.query import QueryPlan

DIGEST = "sha256:" + "0" * 64
COLUMNS = [
    Column(name="alloy", type="text", categories=("a", "b", "c")),
    Column(name="age", type="integer", minimum="0", maximum="120"),
    Column(name="pay", type="integer", minimum="0", maximum="1000"),
    Column(name="site", type="text", categories=("x", "y", "z")),
]
SCHEMA = common_columns([COLUMNS])
TARGET_PAY = 871
NODES, SHARES, RHO = 3, 1, 5_000


def people(rows: int = 200) -> pa.Table:
    """One company's rows; the attacker knows that one of them alone is 77 years old, and wants that one's pay."""
    make = np.random.default_rng(1)
    age, pay = make.integers(20, 60, rows), make.integers(100, 600, rows)
    age[0], pay[0] = 77, TARGET_PAY
    return pa.table({"alloy": ["a"] * rows, "age": age, "pay": pay, "site": ["x"] * rows})


PEOPLE = people()


def planned(text: str, *, private: bool) -> QueryPlan:
    chosen = Private(RHO, 1, NODES, SHARES) if private else None
    return plan_of(parse_question(text, SCHEMA, private=private), SCHEMA, 1000, DIGEST, chosen)


def asked(text: str, *, private: bool, rules: bool = True) -> dict[str, Any]:
    """The figures of the one cell as this company's part makes them; nothing of it where the company keeps it back."""
    plan = planned(text, private=private)
    engine = duckdb.connect(config={"threads": 1})
    engine.register("data", PEOPLE)
    statement = cell_statement(plan, SCHEMA)
    cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    if private:
        vector = encode_noised(plan, statement, cells, {}, draw_noise(plan, SHARES))
    else:
        mine = contributes(plan, [cell and cell.evidence for cell in cells]) if rules else [True]
        vector = encode_cells(plan, statement, cells, mine, NODES)
    return decode_answer(plan, [int(one) for one in vector], 1, SHARES).cells[0].figures


# -- small groups, differences, averages ------------------------------------------------------------------------------


def test_a_question_about_one_row_is_not_answered() -> None:
    text = "SELECT SUM(pay) AS pay FROM people WHERE age = 77"
    assert asked(text, private=False) == {}
    assert asked(text, private=False, rules=False) == {"pay": TARGET_PAY}, "without the rules it is"


def differenced(*, private: bool) -> float:
    everybody = asked("SELECT SUM(pay) AS pay FROM people", private=private)["pay"]
    others = asked("SELECT SUM(pay) AS pay FROM people WHERE age <> 77", private=private)["pay"]
    return float(everybody - others)


def tracked(*, private: bool) -> float:
    """The individual tracker (Denning, Denning, Schwartz 1979): a group that is large enough, with and without the target."""
    padded = asked("SELECT SUM(pay) AS pay FROM people WHERE age < 40 OR age = 77", private=private)["pay"]
    padding = asked("SELECT SUM(pay) AS pay FROM people WHERE age < 40", private=private)["pay"]
    return float(padded - padding)


@pytest.mark.parametrize("attack", [differenced, tracked])
@pytest.mark.usefixtures("seeded_noise")
def test_two_questions_that_differ_by_one_row_do_not_tell_it_under_noise(attack: Any) -> None:
    assert attack(private=False) == TARGET_PAY, "without noise they do"
    apart = [attack(private=True) - TARGET_PAY for _ in range(9)]
    # each sum has a standard deviation of about 14,000: no guess is within the range of pays, but by luck
    assert np.median(np.abs(apart)) > 1000


def questions(connection: sqlite3.Connection, most: int, *, charged: bool) -> int:
    """How often a node answers the same question of one company anew, under the standard budget."""
    now, answered = datetime(2026, 3, 1, tzinfo=UTC), 0
    cost = query_micro_rho(planned("SELECT COUNT(*) AS n FROM people", private=True), SHARES)
    for number in range(most):
        if charged:
            use = budgets.Use(f"plan-{number}", "people", "asker", "agreement")
            try:
                budgets.reserve(connection, use, cost, now)
                budgets.draw(connection, use.plan, number, cost)
            except budgets.BudgetError:
                break
        answered += 1
    return answered


@pytest.mark.parametrize("charged", [True, False])
@pytest.mark.usefixtures("seeded_noise")
def test_averaging_ends_with_the_budget(charged: bool) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in budgets.SCHEMA:
        connection.execute(statement)
    times = questions(connection, 4000, charged=charged)
    plan = planned("SELECT COUNT(*) AS n FROM people", private=True)
    (release,) = releases(plan)
    variance = share_variance(plan, release, SHARES)
    repeated = 200 if charged else 9
    means = [float(discrete_gaussian(times, variance).mean()) for _ in range(repeated)]
    error = float(np.sqrt(np.mean(np.square(means))))
    if charged:
        assert times == 20
        assert error > 1.6, "twenty answers of sigma 10 leave 2.2, found here to 5 in 100"
    else:
        assert times == 4000 and error < 0.5, "without the budget the count is found out"


# -- suppressed cells -------------------------------------------------------------------------------------------------


def evidence(subjects: int) -> CellEvidence:
    return CellEvidence(subjects, subjects, ())


def test_a_suppressed_cell_does_not_follow_from_the_total() -> None:
    """The total of all cells, asked by itself, less the cells that are shown."""
    plan = planned("SELECT alloy, COUNT(*) FROM people GROUP BY alloy", private=False)
    counts = [40, 30, 4]
    shown = contributes(plan, [evidence(count) for count in counts])
    left = sum(counts) - sum(count for count, keep in zip(counts, shown, strict=True) if keep)
    assert left != 4 and shown.count(False) > 1 and left >= plan.rules.subjects
    # weakened: each cell is judged by itself, and what it leaves out follows
    alone = [is_safe(plan, evidence(count)) for count in counts]
    assert sum(counts) - sum(count for count, keep in zip(counts, alone, strict=True) if keep) == 4


def test_a_where_that_isolates_a_company_opens_nothing() -> None:
    """Only the first company has rows at site x; the coordinator and the asker see what opens."""
    plan, common = planned("SELECT COUNT(*) FROM people WHERE site = 'x'", private=False), secrets.token_bytes(32)
    flags = [contributes(plan, [evidence(200)]), contributes(plan, [None]), contributes(plan, [None])]
    assert flags == [[True], [False], [False]]
    total = sum(int(one[0]) for one in flags)
    assert opened([total], plan.rules.contributors) == [False]
    assert opened([total], 1) == [True], "where one contributor is enough, its count is the answer"
    assert len({seal_flags(one, common, DIGEST).tobytes() for one in flags[1:]}) == 1, (
        "flags alone are no secret: masks hide them"
    )


# -- plans and keys ---------------------------------------------------------------------------------------------------


def signed(query: QueryPlan, key: SigningKey) -> Any:
    now = datetime.now(UTC)
    names = ("mill-a", "mill-b", "mill-c")
    return JobPlan(
        issued=now,
        expires=now + timedelta(hours=1),
        id="urn:uuid:00000000-0000-4000-8000-000000000000",
        requester="institute",
        coordinator="hub",
        roster=DIGEST,
        actions=("fed:aggregateQuery",),
        purpose="fed:Benchmarking",
        code=DIGEST,
        runtime=DIGEST,
        cohort=tuple(
            PlannedDataset(node=one, dataset="people", data_version=DIGEST, agreement=DIGEST) for one in names
        ),
        rounds=1,
        run_config={},
        outputs=OutputSchema(train=StageOutput(sent=False), evaluate=StageOutput(sent=False)),
        encoding={"ring": "z64", "fraction_bits": 40, "weight_minimum": 1, "weight_maximum": 1},
        protection="fed:masked",
        minimal_participants=3,
        query=query,
    ).seal(key)


@pytest.mark.parametrize(
    "forged",
    [
        {"where": None},
        {"context": "sha256:" + "f" * 64},
        {"rules": {"contributors": 3, "subjects": 10, "dominance": "0.9", "p_ratio": "0.1", "parameters": "0.33"}},
    ],
)
def test_a_plan_that_the_coordinator_changed_is_no_plan(forged: dict[str, Any]) -> None:
    """Another condition, a key of its own, weaker rules: signed by whoever has no key of the asker's."""
    asker, coordinator = SigningKey.generate(), SigningKey.generate()
    query = planned("SELECT COUNT(*) FROM people WHERE age < 40", private=False)
    query = query.model_copy(update={"rules": query.rules.model_copy(update={"contributors": 5})})
    other = QueryPlan.model_validate({**query.model_dump(mode="json"), **forged})
    envelope, now = signed(other, coordinator), datetime.now(UTC)
    assert other != query
    JobPlan.open(signed(query, asker), [asker.public], now)
    with pytest.raises(VerificationError):
        JobPlan.open(envelope, [asker.public], now)
    assert JobPlan.read(envelope).query == other, "read without its signature, it says what the coordinator wants"


def test_whoever_brings_another_key_reads_the_sum() -> None:
    """What the check of the context is for: under a key of the coordinator's own, the sum opens to the coordinator."""
    _, (public, _) = Cipher().keys({}, b"")
    _, (own_public, own_secret) = Cipher().keys({}, b"")
    vector = np.array([1, 1, TARGET_PAY], dtype="<u8").tobytes()

    def read(under: bytes, by: bytes) -> list[int]:
        node, reader = Cipher(), Cipher()
        node.context({}, under)
        told, parts = node.encrypt({}, vector)
        reader.context({"secret": True}, by)
        _, (body,) = reader.decrypt({"sizes": told["sizes"]}, b"".join(parts))
        return [int(one) for one in np.frombuffer(body, dtype="<u8")]

    assert TARGET_PAY in read(own_public, own_secret), "the node took the coordinator's context"
    try:
        assert TARGET_PAY not in read(public, own_secret)
    except ValueError as error:
        assert "cipher-noise" in str(error)  # under another key there is no noise budget left


# -- what the coordinator ever held -----------------------------------------------------------------------------------


def transcript(
    values: list[list[int]], public: bytes, make: np.random.Generator
) -> tuple[NDArray[np.uint64], list[int], int]:
    """All that a coordinator holds of a query's cells: masked vectors, ciphertexts' sizes, and the length of its answer.

    Pairwise masks as three nodes have them; what is added last is the correction that opens the sum under the asker's key.
    """
    size = len(values[0])
    pairs = {(a, b): MaskKey(make.bytes(16), 1) for a in range(3) for b in range(a + 1, 3)}
    own = [MaskKey(make.bytes(16), 1) for _ in values]
    masked, sizes = [], []
    total = Cipher()
    total.context({}, public)
    for node, value in enumerate(values):
        vector = np.array(value, dtype=np.uint64) % np.uint64(MODULUS)
        keys = [MaskKey(key.key, 1 if a == node else -1) for (a, b), key in pairs.items() if node in (a, b)]
        add_masks([(vector, RING)], [*keys, own[node]])
        masked.append(vector)
        cipher = Cipher()
        cipher.context({}, public)
        told, parts = cipher.encrypt({}, vector.astype("<u8").tobytes())
        sizes += [len(part) for part in parts]
        total.add({"sizes": told["sizes"]}, b"".join(parts))
    correction = np.zeros(size, dtype=np.uint64)
    add_masks([(correction, RING)], [MaskKey(key.key, -1) for key in own])
    _, parts = total.finish({}, correction.astype("<u8").tobytes())
    return np.concatenate(masked), sizes, sum(len(part) for part in pack_parts([bytes(one) for one in parts]))


def test_inv5_what_the_coordinator_held_says_nothing_but_the_sum() -> None:
    """Two sets of inputs with the same sum: vectors of the same (uniform) distribution, ciphertexts of the same sizes.

    Taken away the masks, the same look finds the difference.
    """
    from scipy.stats import ks_2samp, kstest

    make = np.random.default_rng(3)
    size = SLOTS // 4
    first = [[1] * size, [1] * size, [1000] * size]
    second = [[334] * size, [334] * size, [334] * size]
    _, (public, _) = Cipher().keys({}, b"")
    held = [transcript(values, public, make) for values in (first, second)]
    for vectors, _, _ in held:
        assert kstest(vectors / MODULUS, "uniform").pvalue > 1e-6
    assert ks_2samp(held[0][0], held[1][0]).pvalue > 1e-6
    # ciphertexts are packed: a few bytes more or less, whatever is in them
    means = [float(np.mean(sizes)) for _, sizes, _ in held]
    assert abs(means[0] - means[1]) < 0.001 * means[0] and abs(held[0][2] - held[1][2]) < 0.001 * held[0][2]
    assert ks_2samp(np.concatenate(first), np.concatenate(second)).pvalue < 1e-6, "without masks they are told apart"


def test_inv5_what_a_node_does_takes_as_long_whatever_its_rows_say() -> None:
    """Encoding and masking of two companies with the same number of cells, one with rows in all, one in none."""
    import time

    plan = planned(
        "SELECT HISTOGRAM(age, " + ", ".join(str(one) for one in range(101)) + "), SUM(pay) FROM people", private=True
    )
    statement, noise = cell_statement(plan, SCHEMA), draw_noise(plan, SHARES)
    engine = duckdb.connect(config={"threads": 1})
    engine.register("data", PEOPLE)
    full = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    empty: list[Any] = [None] * plan.cells
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(120):
        cells = full if turn % 2 else empty
        began = time.perf_counter()
        vector = encode_noised(plan, statement, cells, {}, noise)
        add_masks([(vector, RING)], [MaskKey(secrets.token_bytes(16), 1)])
        taken[bool(turn % 2)].append(time.perf_counter() - began)
        assert len(vector) == VectorLayout.of(plan).size
    ratio = float(np.median(taken[True]) / np.median(taken[False]))
    assert 0.5 < ratio < 2, ratio


# -- one company twice ------------------------------------------------------------------------------------------------


def seen_by_a_company_with_two_nodes() -> int | None:
    """What such a company, the asker's friend, learns of the one other that contributes; None where nothing opens.

    It runs two of the three nodes, and takes its own parts off the opened sum.
    """
    plan = planned("SELECT SUM(pay) AS pay, COUNT(*) AS n FROM people", private=False)
    statement = cell_statement(plan, SCHEMA)
    engine = duckdb.connect(config={"threads": 1})
    engine.register("data", PEOPLE)
    cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    counts = [3]  # a flag of each node
    if opened(counts, plan.rules.contributors) != [True]:
        return None
    own, other = np.zeros(VectorLayout.of(plan).size, dtype=np.uint64), encode_cells(plan, statement, cells, [True], 3)
    own[0] = own[1] = 1
    total = (own + own + other) % np.uint64(MODULUS)
    return int(decode_answer(plan, [int(one) for one in total], 3).cells[0].figures["pay"])  # type: ignore[arg-type]


def test_inv5_a_company_with_two_nodes_does_not_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from enterprise_node import query_rules
    from tests.enterprise_node import test_query_rules as rules

    assert seen_by_a_company_with_two_nodes() == sum(PEOPLE["pay"].to_pylist()), "flags are of nodes, not of companies"
    twice = rules.admitted(members={"mill-a": "A", "mill-a2": "A", "mill-b": "B"})
    assert rules.refused(twice, rules.described()) == "query-entity-twice"
    monkeypatch.setattr(query_rules, "Counter", lambda names: dict.fromkeys(names, 1))
    bundle = rules.CodeBundle({rules.CONTEXT_FILE: rules.CONTEXT})
    query_rules.check_plan(twice, rules.described(), bundle)  # type: ignore[arg-type]
