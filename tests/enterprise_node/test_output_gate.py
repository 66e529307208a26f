"""Inv. 3: what leaves is what the plan declared, and nothing a job could spell a message with."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest

from enterprise_node.output_gate import METRICS_RECORD, GatedReply, OutputRefusedError, RefusalCode, check_reply
from federation.jobs import Content
from federation.statements import ArraySpec, MetricSpec, StageOutput

SECRET = "4711.25"
SENT = Content(
    arrays={"arrays": {"b": np.zeros(2, "f4"), "a": np.zeros((2, 3), "f8"), "n": np.zeros((), "i8")}},
    configs={"config": {"lr": 0.1}},
)
OUTPUT = StageOutput(
    sent=True,
    arrays=(ArraySpec(record="extra", name="v", dtype="float16", shape=(2,)),),
    metrics=(MetricSpec(name="loss", minimum="0", maximum="10"), MetricSpec(name="num-examples")),
)
GOOD: dict[str, dict[str, Any]] = {
    "arrays": {"b": np.ones(2, "f4"), "a": np.ones((2, 3), "f8"), "n": np.array(1, "i8")},
    "extra": {"v": np.ones(2, "f2")},
}
METRICS: dict[str, dict[str, Any]] = {"metrics": {"loss": 1.5, "num-examples": 7}}


def gate(
    arrays: Mapping[str, Mapping[str, Any]] = GOOD,
    metrics: Mapping[str, Mapping[str, Any]] = METRICS,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int = 2**20,
    output: StageOutput = OUTPUT,
) -> GatedReply:
    return check_reply(Content(arrays, metrics, configs or {}), SENT, output, limit)


def changed(record: str, name: str, value: Any) -> dict[str, dict[str, Any]]:
    return {**GOOD, record: {**GOOD.get(record, {}), name: value}}


def without(record: str, name: str) -> dict[str, dict[str, Any]]:
    return {**GOOD, record: {key: value for key, value in GOOD[record].items() if key != name}}


def test_what_was_declared_passes() -> None:
    gated = gate()
    assert (gated.normalised, gated.bytes) == (0, 8 + 48 + 8 + 4 + 16)
    assert gated.content.arrays["arrays"]["a"] is not None
    assert gated.content.metrics == {METRICS_RECORD: {"loss": 1.5, "num-examples": 7}}
    assert not gated.content.configs
    assert np.shares_memory(gated.content.arrays["arrays"]["a"], GOOD["arrays"]["a"])


REFUSED: list[tuple[RefusalCode, dict[str, Any]]] = [
    ("output-config", {"configs": {"c": {SECRET: SECRET}}}),
    ("output-missing-array", {"arrays": without("arrays", "b")}),
    ("output-missing-array", {"arrays": without("extra", "v")}),
    ("output-missing-array", {"arrays": {}}),
    ("output-missing-array", {"arrays": {SECRET: GOOD["arrays"], "extra": GOOD["extra"]}}),
    ("output-extra-array", {"arrays": changed("arrays", SECRET, np.zeros(1))}),
    ("output-extra-array", {"arrays": changed(SECRET, "x", np.zeros(0))}),
    ("output-dtype", {"arrays": changed("arrays", "b", np.zeros(2, "f8"))}),
    ("output-dtype", {"arrays": changed("arrays", "b", np.zeros(2, ">f4"))}),
    ("output-dtype", {"arrays": changed("arrays", "b", np.array([SECRET, SECRET], dtype=object))}),
    ("output-dtype", {"arrays": changed("arrays", "n", np.array(0, "u8"))}),
    ("output-shape", {"arrays": changed("arrays", "b", np.zeros(3, "f4"))}),
    ("output-shape", {"arrays": changed("arrays", "a", np.zeros((3, 2), "f8"))}),
    ("output-shape", {"arrays": changed("arrays", "n", np.zeros(1, "i8"))}),
    ("output-extra-metric", {"metrics": {"metrics": {**METRICS["metrics"], SECRET: 1.0}}}),
    ("output-extra-metric", {"metrics": {**METRICS, "again": {"loss": 1.0}}}),
    ("output-missing-metric", {"metrics": {"metrics": {"loss": 1.0}}}),
    ("output-missing-metric", {"metrics": {}}),
    ("output-metric-type", {"metrics": {"metrics": {"loss": [1.0, 2.0], "num-examples": 7}}}),
    ("output-metric-type", {"metrics": {"metrics": {"loss": True, "num-examples": 7}}}),
    ("output-metric-type", {"metrics": {"metrics": {"loss": SECRET, "num-examples": 7}}}),
    ("output-metric-range", {"metrics": {"metrics": {"loss": 10.000001, "num-examples": 7}}}),
    ("output-metric-range", {"metrics": {"metrics": {"loss": -1e-9, "num-examples": 7}}}),
    ("output-metric-range", {"metrics": {"metrics": {"loss": 1, "num-examples": 10**400}}}),
    ("output-not-finite", {"metrics": {"metrics": {"loss": float("nan"), "num-examples": 7}}}),
    ("output-not-finite", {"metrics": {"metrics": {"loss": float("inf"), "num-examples": 7}}}),
    ("output-not-finite", {"arrays": changed("arrays", "b", np.array([1, np.nan], "f4"))}),
    ("output-not-finite", {"arrays": changed("arrays", "a", np.full((2, 3), -np.inf))}),
    ("output-not-finite", {"arrays": changed("extra", "v", np.array([np.nan, 1], "f2"))}),
    ("output-too-large", {"limit": 83}),
]


@pytest.mark.parametrize(("code", "arguments"), REFUSED)
def test_inv3_everything_else_is_refused_without_a_word_of_the_job(code: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(OutputRefusedError) as refused:
        gate(**arguments)
    error = refused.value
    assert error.code == code
    assert error.exit_code == 3
    assert SECRET not in f"{error.message} {error.hint} {error.params}"


def test_every_code_has_its_refusal() -> None:
    assert {code for code, _ in REFUSED} == set(get_args(RefusalCode))


def test_the_bound_on_size_is_inclusive() -> None:
    assert gate(limit=84).bytes == 84


def test_inv3_names_order_and_empty_records_carry_nothing() -> None:
    """The order of entries, the metrics' record and empty records are the job's to choose, so none of them leaves."""
    arrays = {
        SECRET: {},
        "extra": GOOD["extra"],
        "arrays": {name: GOOD["arrays"][name] for name in ("n", "a", "b")},
    }
    metrics = {SECRET: {"num-examples": 7}, "second": {"loss": 1.5}, "third": {}}
    plain = gate().content
    hidden = gate(arrays, metrics, {"empty": {}}).content
    for kind in ("arrays", "metrics", "configs"):
        left, right = getattr(plain, kind), getattr(hidden, kind)
        assert [(r, list(e)) for r, e in left.items()] == [(r, list(e)) for r, e in right.items()]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_negative_zeros_and_subnormals_become_zero_and_are_counted(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    normal = np.finfo(dtype).tiny
    values = np.array([-0.0, tiny, -tiny, 0.0, normal, -normal, 1.0], dtype)
    values.setflags(write=False)  # as it comes out of a result pipe
    output = StageOutput(sent=False, arrays=(ArraySpec(record="r", name="x", dtype=values.dtype.name, shape=(7,)),))
    gated = check_reply(Content({"r": {"x": values}}), SENT, output, 1000)
    clean = gated.content.arrays["r"]["x"]
    assert gated.normalised == 3
    assert clean.tobytes() == np.array([0, 0, 0, 0, normal, -normal, 1], dtype).tobytes()
    assert np.signbit(values[0])  # the job's own array is left alone


def test_normalising_reaches_past_the_first_chunk() -> None:
    values = np.ones(200_000, "f4")
    values[[0, 70_000, 199_999]] = -0.0
    output = StageOutput(sent=False, arrays=(ArraySpec(record="r", name="x", dtype="float32", shape=(200_000,)),))
    gated = check_reply(Content({"r": {"x": values}}), SENT, output, 2**20)
    assert gated.normalised == 3
    assert not np.signbit(gated.content.arrays["r"]["x"]).any()
    values[150_000] = np.inf
    with pytest.raises(OutputRefusedError):
        check_reply(Content({"r": {"x": values}}), SENT, output, 2**20)


def test_metrics_lose_their_negative_zero_and_truth_values_their_hidden_bits() -> None:
    output = StageOutput(
        sent=False,
        arrays=(ArraySpec(record="r", name="x", dtype="bool", shape=(3,)),),
        metrics=(MetricSpec(name="m"), MetricSpec(name="k")),
    )
    hidden = np.array([0, 1, 0x47], dtype=np.uint8).view(bool)
    gated = check_reply(Content({"r": {"x": hidden}}, {"q": {"m": -0.0, "k": -5e-324}}), SENT, output, 1000)
    assert gated.normalised == 3
    assert gated.content.arrays["r"]["x"].tobytes() == b"\0\1\1"
    assert not any(np.signbit(value) for value in gated.content.metrics[METRICS_RECORD].values())


def test_layout_in_memory_does_not_matter() -> None:
    arrays = changed("arrays", "a", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    arrays["arrays"]["b"] = np.arange(1, 5, dtype="f4")[::2]
    clean = gate(arrays).content.arrays["arrays"]
    assert clean["a"].flags.c_contiguous
    assert np.array_equal(clean["a"], np.arange(6.0).reshape(2, 3))
    assert clean["b"].tolist() == [1, 3]


def test_claims_of_ten_gigabytes_cost_nothing() -> None:
    shape = (2_500_000_000,)
    output = StageOutput(sent=False, arrays=(ArraySpec(record="r", name="x", dtype="float32", shape=shape),))
    claims: list[tuple[str, Any]] = [
        ("output-shape", np.zeros(4, "f4")),  # the plan claims it, the reply has four values
        ("output-too-large", np.broadcast_to(np.float32(1), shape)),  # the reply claims it over four bytes
    ]
    for code, array in claims:
        tracemalloc.start()
        try:
            with pytest.raises(OutputRefusedError) as refused:
                check_reply(Content({"r": {"x": array}}), SENT, output, 2**31)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert refused.value.code == code
        assert peak < 2**20


def test_without_sent_only_declared_arrays_may_come_back() -> None:
    output = StageOutput(sent=False, metrics=OUTPUT.metrics)
    assert gate({}, output=output).content.arrays == {}
    with pytest.raises(OutputRefusedError) as refused:
        gate(output=output)
    assert refused.value.code == "output-extra-array"


def test_a_count_where_a_fraction_was_sent_takes_its_type() -> None:
    gated = gate(changed("arrays", "b", np.array([3, -4], "i8")))
    clean = gated.content.arrays["arrays"]["b"]
    assert clean.dtype == np.dtype("f4") and clean.tolist() == [3.0, -4.0]
    assert gated.bytes == 8 + 48 + 8 + 4 + 16
    assert gate(changed("arrays", "a", np.ones((2, 3), "f4"))).content.arrays["arrays"]["a"].dtype == np.dtype("f8")
    with pytest.raises(OutputRefusedError, match="of type float16"):  # declared by its author, and not what was sent
        gate(changed("extra", "v", np.array([3, 4], "i8")))
