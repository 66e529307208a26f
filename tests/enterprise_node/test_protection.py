"""Inv. 5 and 8: a reply without its masks is refused, never sent; clear updates only as the plan says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from enterprise_node.output_gate import GatedReply, check_reply
from enterprise_node.protection import protect
from federation.errors import DeniedError
from federation.jobs import Content
from federation.secagg import Accumulator, EncodedReply, Layout, WeightError, choose_encoding
from federation.statements import JobPlan, MetricSpec, OutputSchema, PlannedDataset, StageOutput

DIGEST = "sha256:" + "0" * 64
SENT = Content({"arrays": {"w": np.zeros(4, "f4")}})
TRAIN = StageOutput(sent=True, metrics=(MetricSpec(name="loss"),))


def plan(**changes: Any) -> JobPlan:
    fields: dict[str, Any] = {
        "issued": datetime(2025, 1, 1, tzinfo=UTC),
        "expires": datetime(2025, 2, 1, tzinfo=UTC),
        "id": "urn:uuid:00000000-0000-0000-0000-000000000000",
        "requester": "r",
        "coordinator": "c",
        "roster": DIGEST,
        "actions": ("fed:train",),
        "purpose": "research",
        "code": DIGEST,
        "runtime": DIGEST,
        "cohort": tuple(
            PlannedDataset(node=node, dataset="d", data_version=DIGEST, agreement=DIGEST) for node in ("x", "y", "z")
        ),
        "rounds": 1,
        "run_config": {},
        "outputs": OutputSchema(train=TRAIN, evaluate=StageOutput(sent=False)),
        "encoding": choose_encoding([(10, 11)] * 3),
        "protection": "fed:none",
        "minimal_participants": 3,
    }
    return JobPlan(**(fields | changes))


def gated() -> GatedReply:
    return check_reply(Content({"arrays": {"w": np.full(4, 3.0, "f4")}}, {"m": {"loss": 0.5}}), SENT, TRAIN, 1000)


LAYOUT = Layout.derive(SENT.arrays, TRAIN)


def test_inv8_without_masks_nothing_leaves_and_nothing_stands_in_for_them() -> None:
    for aggregation in ("sum", "each"):
        with pytest.raises(DeniedError) as refused:
            protect(gated(), SENT, plan(protection="fed:masked", aggregation=aggregation), "train", 10, LAYOUT)
        assert refused.value.code == "protection-unavailable"


def test_under_sum_the_reply_is_encoded_for_the_whole_cohort() -> None:
    signed = plan()
    encoded = protect(gated(), SENT, signed, "train", 10, LAYOUT)
    assert isinstance(encoded, EncodedReply)
    total = Accumulator(LAYOUT, signed.encoding, 3)
    total.add(encoded)
    aggregate = total.finish(1, SENT.arrays)
    assert aggregate.arrays["arrays"]["w"] == pytest.approx(np.full(4, 3.0), abs=1e-6)
    assert aggregate.metrics["loss"] == pytest.approx(0.5)


def test_under_each_the_reply_leaves_as_it_passed_the_gate() -> None:
    one = gated()
    assert protect(one, SENT, plan(aggregation="each"), "train", 10, LAYOUT) is one.content


def test_under_each_the_plan_s_clip_still_binds() -> None:
    encoding = plan().encoding.model_copy(update={"clip": "1"})
    left = protect(gated(), SENT, plan(aggregation="each", encoding=encoding), "train", 10, LAYOUT)
    assert isinstance(left, Content)
    assert float(np.linalg.norm(left.arrays["arrays"]["w"])) == pytest.approx(1.0)
    assert left.metrics["metrics"]["loss"] == 0.5


def test_a_weight_outside_the_plan_or_another_stage_s_layout_is_refused() -> None:
    with pytest.raises(WeightError):
        protect(gated(), SENT, plan(), "train", 12, LAYOUT)
    with pytest.raises(DeniedError):
        protect(gated(), SENT, plan(), "evaluate", 10, LAYOUT)
