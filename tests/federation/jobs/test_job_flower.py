"""Fails where flwr's inside moves: each part of it that is not public, held down."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from federation.jobs import Content, flower
from federation.jobs.codec import DTYPES, body_size, decode, describe
from federation.jobs.frames import Received, write_file


def test_the_version_is_the_one_adapted_to():
    assert version("flwr").startswith("1.41.")


def test_a_message_is_built_without_flowers_processes():
    flower.identify(5, 1)
    message = Message(RecordDict(), 9, "train")
    assert (message.metadata.run_id, message.metadata.src_node_id, message.metadata.dst_node_id) == (5, 1, 9)
    reply = flower.answer(message, "m1", RecordDict({"m": MetricRecord({"n": 1})}))
    assert (reply.metadata.reply_to_message_id, reply.metadata.src_node_id) == ("m1", 9)
    error = flower.answer(message, "m1", "denied")
    assert error.has_error()
    assert error.error.reason == "denied"


def test_an_instruction_can_be_answered():
    message = flower.instruction(RecordDict(), "query.x", run_id=5, node_id=9, number=3)
    reply = Message(RecordDict(), reply_to=message)
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (9, flower.SUPERLINK_NODE_ID)
    assert reply.metadata.reply_to_message_id == "message-3"
    assert 0 < reply.metadata.ttl <= 43200


def test_registered_functions_are_found():
    app = ClientApp()
    app.train()(lambda message, context: message)
    app.query("stats")(lambda message, context: message)
    assert flower.handles(app, "train")
    assert flower.handles(app, "query.stats")
    assert not flower.handles(app, "query")
    assert not flower.handles(app, "evaluate")
    assert flower.handles(ClientApp(client_fn=lambda context: None), "train")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("kind", "valid"),
    [("train", True), ("query.a_b", True), ("evaluate.x", True), ("system", False), ("train.a.b", False), ("", False),
     ("train.", False), ("get_parameters", False), ("reconnect", False), (None, False)],
)  # fmt: skip
def test_message_types(kind: Any, valid: bool):
    assert flower.valid_type(kind) is valid


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_become_flowers_and_come_back(dtype: str, shape: tuple[int, ...]):
    array = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)
    records = flower.to_records(Content(arrays={"a": {"x": array}}))
    mine, flowers = records.array_records["a"]["x"], Array(array)
    assert mine.data == flowers.data  # byte for byte what Flower writes
    assert (mine.dtype, mine.shape, mine.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    back = flower.to_content(records).arrays["a"]["x"]
    assert (back.dtype, back.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(back, array)


def test_layouts_of_other_writers_are_read():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    for given in (array, np.asfortranarray(array), np.arange(12, dtype=np.float32)[::2]):
        records = RecordDict({"a": ArrayRecord({"x": Array(given)})})
        np.testing.assert_array_equal(flower.to_content(records).arrays["a"]["x"], given)


def test_objects_are_never_unpickled():
    data = np.lib.format.header_data_from_array_1_0(np.zeros(1))
    from io import BytesIO

    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {**data, "descr": "|O"})
    records = RecordDict(
        {"a": ArrayRecord({"x": Array("object", (1,), "numpy.ndarray", file.getvalue() + b"\x80\x04.")})}
    )
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        flower.to_content(records)
    records = RecordDict({"a": ArrayRecord({"x": Array("float32", (1,), "torch", b"\0\0\0\0")})})
    with pytest.raises(ValueError, match="numpy"):
        flower.to_content(records)


def test_the_signatures_that_are_relied_on():
    assert list(inspect.signature(Strategy.start).parameters)[:3] == ["self", "grid", "initial_arrays"]
    assert list(inspect.signature(Grid.send_and_receive).parameters) == ["self", "messages", "timeout"]
    assert Grid.__abstractmethods__ == {
        "create_message", "get_node_ids", "pull_messages", "push_messages", "run", "send_and_receive", "set_run",
    }  # fmt: skip
    assert {"run_id", "node_id", "node_config", "state", "run_config"} <= set(inspect.signature(Context).parameters)
    assert flower.Run.create_empty(3).run_id == 3


def test_no_telemetry_and_no_question_for_updates():
    import os

    from flwr.supercore import constant

    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ[constant.FLWR_DISABLE_UPDATE_CHECK] == "1"


def test_an_array_holds_its_numbers_once_and_is_flowers_all_the_same() -> None:
    """Bytes, copies and equality as Flower's own arrays have them, whatever is held inside."""
    for given in (
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6)[::2],
        np.array(3.5),
        np.zeros((0, 2), dtype=np.float16),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ):
        array = Array(given)
        file = BytesIO(array.data)
        np.testing.assert_array_equal(np.load(file), given)
        assert np.load(BytesIO(array.data)).dtype == given.dtype == array.numpy().dtype
        before = given.copy()
        given[...] = 0
        np.testing.assert_array_equal(array.numpy(), before)  # a snapshot, not a view of the app's array
        array.numpy()[...] = 0
        np.testing.assert_array_equal(array.numpy(), before)  # and what is read from it is the reader's own
        assert array.numpy().flags.writeable
        copied = ArrayRecord({"w": array})["w"]
        assert copied == array == copy.deepcopy(array) == pickle.loads(pickle.dumps(array))
        copied.data = Array(np.ones(1)).data
        assert copied.numpy().tolist() == [1.0] and array.numpy().shape == before.shape
        assert copied.object_id != array.object_id


def test_an_array_of_objects_is_refused_as_flower_refuses_it() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        Array(np.array([object()]))


def _reply(weight: float, **records: dict[str, np.ndarray]) -> RecordDict:
    contents = {name: ArrayRecord({key: Array(one) for key, one in arrays.items()}) for name, arrays in records.items()}
    return RecordDict({**contents, "metrics": MetricRecord({"num-examples": weight})})


def test_the_mean_of_one_reply_is_that_reply_and_flowers_mean_of_it() -> None:
    from flwr.serverapp.strategy import FedAvg, fedavg, strategy_utils

    assert inspect.getmodule(FedAvg.aggregate_train) is fedavg and "aggregate_arrayrecords(" in inspect.getsource(
        fedavg
    )
    flowers = strategy_utils.aggregate_arrayrecords
    values = np.array([1.5, -0.0, 1e-45, -3e38], dtype=np.float32)
    reply = _reply(7, arrays={"w": values, "h": values[:2].astype(np.float16)}, more={"d": values.astype(np.float64)})
    mean, theirs = fedavg.aggregate_arrayrecords([reply], "num-examples"), flowers([reply], "num-examples")
    assert list(mean) == list(theirs) == ["w", "h", "d"]
    for name, array in theirs.items():
        assert mean[name].data == array.data  # to the bit, types and shapes with it
    held = mean["w"].__dict__["data"]
    assert held is reply.array_records["arrays"]["w"].__dict__["data"] and not held.flags.writeable


@pytest.mark.parametrize(
    "replies",
    [
        [_reply(7, arrays={"w": np.array([2, 3])})],  # a mean of integers is of fractions
        [_reply(7, a={"w": np.ones(2)}, b={"w": np.ones(2)})],  # one name twice is a sum
        [_reply(3, a={"w": np.ones(2)}), _reply(1, a={"w": np.zeros(2)})],
        [_reply(float("inf"), a={"w": np.ones(2)})],
    ],
)
def test_what_is_not_one_reply_of_fractions_is_left_to_flower(replies: list[RecordDict]) -> None:
    from flwr.serverapp.strategy import fedavg, strategy_utils

    mean = fedavg.aggregate_arrayrecords(replies, "num-examples")
    theirs = strategy_utils.aggregate_arrayrecords(replies, "num-examples")
    assert mean["w"].data == theirs["w"].data
    assert mean["w"].__dict__["data"] is not next(iter(replies[0].array_records.values()))["w"].__dict__["data"]


def test_a_reply_without_weight_fails_as_flowers_does() -> None:
    from flwr.serverapp.strategy import fedavg

    with pytest.raises(ZeroDivisionError):
        fedavg.aggregate_arrayrecords([_reply(0, a={"w": np.ones(2)})], "num-examples")


def test_a_received_array_cannot_be_changed_through_its_record() -> None:
    sent = np.arange(3.0)
    array = flower.to_records(Content(arrays={"a": {"w": sent}})).array_records["a"]["w"]
    array.numpy()[0] = 7
    assert sent[0] == 0
    assert not array.__dict__["data"].flags.writeable


def test_numbers_that_came_in_a_file_are_copied_page_by_page_as_they_are_written() -> None:
    numbers = np.arange(2**21, dtype=np.float32)
    sent = Content(arrays={"a": {"x": numbers[: 2**20], "y": numbers[2**20 :], "small": numbers[:8]}})
    header, buffers = describe(sent)
    file = os.memfd_create("body")
    write_file(file, buffers)
    records = flower.to_records(decode(header, memoryview(Received.of(file, body_size(header)))))
    os.close(file)
    x, y = records.array_records["a"]["x"], records.array_records["a"]["y"]
    before = _anonymous()
    first, other = x.numpy(), y.numpy()
    total = first.sum(dtype=np.float64)
    assert _anonymous() - before < first.nbytes // 4
    assert total == numbers[: 2**20].sum(dtype=np.float64)
    first[:], other[:] = 1, 2  # the reader's own
    for _ in range(2):
        np.testing.assert_array_equal(x.numpy(), numbers[: 2**20])
        np.testing.assert_array_equal(y.numpy(), numbers[2**20 :])
    again = x.numpy()
    again[:] = 3
    assert (first[0], other[0], again[0]) == (1, 2, 3)
    np.testing.assert_array_equal(np.load(BytesIO(x.data)), numbers[: 2**20])
    np.testing.assert_array_equal(flower.to_content(records).arrays["a"]["y"], numbers[2**20 :])


def _anonymous() -> int:
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("RssAnon:"))
