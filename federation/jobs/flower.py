"""The adapter to flwr's inside: the one place that imports it.

Flower's processes build messages and load apps behind a server of their own. Here both happen without it, which needs
parts that are not Flower's public interface: ``TaskIdentity``, ``make_message``, the names of a ClientApp's registered
functions, the npy bytes in an ``Array``. A test holds each of them down, so that a release that moves one is noticed
there.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from functools import reduce
from io import BytesIO
from typing import Any

# before the import, which reads the first of them once: no telemetry, no question for updates
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import numpy as np
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message.message import make_message
from flwr.app.metadata import validate_message_type
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SType
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import fedavg
from flwr.serverapp.strategy.fedopt import FedOpt
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords, aggregate_metricrecords
from flwr.supercore.date import now
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from .codec import Array as NumpyArray
from .codec import Content
from .frames import FILE_FROM, Received

__all__ = [
    "SUPERLINK_NODE_ID",
    "ClientApp",
    "Context",
    "FedOpt",
    "Grid",
    "Message",
    "RecordDict",
    "Run",
    "ServerApp",
    "aggregate_metricrecords",
    "answer",
    "handles",
    "identify",
    "instruction",
    "load_app",
    "store_by",
    "strategies",
    "to_content",
    "to_records",
    "valid_type",
]


def identify(run_id: int, node_id: int) -> None:
    """Set who this process is, which every message built without ``reply_to`` takes from here."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = 0


def to_records(content: Content) -> RecordDict:
    """Return a content as Flower's records."""
    records = RecordDict()
    for record, arrays in content.arrays.items():
        records[record] = ArrayRecord({name: _to_array(array) for name, array in arrays.items()})
    for record, metrics in content.metrics.items():
        records[record] = MetricRecord(dict(metrics))
    for record, configs in content.configs.items():
        records[record] = ConfigRecord(dict(configs))
    return records


def to_content(records: RecordDict) -> Content:
    """Return Flower's records as a content; arrays are views of the records' bytes where the layout allows.

    Raises:
        ValueError: an array is not in numpy's format, or holds Python objects.
    """
    return Content(
        {
            record: {name: _to_numpy(array) for name, array in arrays.items()}
            for record, arrays in records.array_records.items()
        },
        {record: dict(metrics.items()) for record, metrics in records.metric_records.items()},
        {record: dict(configs.items()) for record, configs in records.config_records.items()},
    )


def _to_array(array: NumpyArray) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return _holding(view, array.dtype.name, SType.NUMPY)


def _to_numpy(array: Array) -> NumpyArray:
    if array.stype != SType.NUMPY:
        raise ValueError("an array is not in numpy's format")
    held = array.__dict__["data"]
    if isinstance(held, np.ndarray):
        return held
    head = BytesIO(array.data[:4096])  # as np.load would find it, but without the copy of the data
    if np.lib.format.read_magic(head) == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        if not fortran and not dtype.hasobject:
            count = int(np.prod(shape, dtype=np.int64))
            flat: NumpyArray = np.frombuffer(array.data, dtype=dtype, count=count, offset=head.tell())
            return flat.reshape(shape)
    loaded: NumpyArray = np.load(BytesIO(array.data), allow_pickle=False)
    return loaded


# Flower keeps an array as the bytes of an npy file: a model is copied three times to become one, and twice to be read.
# Here an Array holds the numbers themselves, which nobody else can change, and makes those bytes when they are asked for.

_from_numpy, _numpy, _from_arrays = Array.from_numpy_ndarray, Array.numpy, ArrayRecord.from_array_dict


class _Data:
    """``Array.data``."""

    def __get__(self, array: Array | None, owner: type) -> bytes:
        if array is None or "data" not in array.__dict__:
            raise AttributeError("data")
        held = array.__dict__["data"]
        return _npy(held) if isinstance(held, np.ndarray) else held

    def __set__(self, array: Array, value: bytes) -> None:
        array.__dict__["data"] = value


def _npy(array: NumpyArray) -> bytes:
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    return b"".join([head.getvalue(), array.reshape(-1).view(np.uint8).data])


def _holding(numbers: NumpyArray, dtype: str, stype: str) -> Array:
    array = Array(dtype=dtype, shape=tuple(numbers.shape), stype=stype, data=b"")
    array.__dict__["data"] = numbers
    return array


_stores: list[Callable[[NumpyArray], NumpyArray | None]] = []


def store_by(store: Callable[[NumpyArray], NumpyArray | None]) -> None:
    """Have the copies of arrays that records hold made by ``store``, where it can."""
    _stores[:] = [store]


def _stored(numbers: NumpyArray) -> NumpyArray | None:
    return next((copy for store in _stores if (copy := store(numbers)) is not None), None)


def _array_from_numpy(cls: type[Array], ndarray: NumpyArray) -> Array:
    if not isinstance(ndarray, np.ndarray) or ndarray.dtype.kind not in "biufc" or not ndarray.dtype.isnative:
        return _from_numpy(ndarray)
    numbers = _stored(ndarray)
    if numbers is None:
        numbers = np.array(ndarray, order="C", copy=True)
        numbers.flags.writeable = False
    return _holding(numbers, str(ndarray.dtype), SType.NUMPY)


def _array_numpy(self: Array) -> NumpyArray:
    held = self.__dict__["data"]
    if self.stype != SType.NUMPY or not isinstance(held, np.ndarray):
        return _numpy(self)
    return _lent(held) if held.nbytes >= FILE_FROM else held.copy()  # the caller's own, as from np.load


def _lent(held: NumpyArray) -> NumpyArray:
    """A copy of numbers that nobody changes, of which only the pages that are written take memory where they lie in a
    file."""
    base: object = held
    while isinstance(base, np.ndarray):
        base = base.base
    source = base.obj if isinstance(base, memoryview) else None
    if isinstance(source, Received) and held.flags.c_contiguous:
        start = held.ctypes.data - np.frombuffer(source, dtype=np.uint8).ctypes.data
        own = source.take(start, held.nbytes)
        if own is not None:
            return np.frombuffer(own, dtype=held.dtype).reshape(held.shape)
    return held.copy()


def _record_from_arrays(
    cls: type[ArrayRecord], array_dict: dict[str, Array], *, keep_input: bool = True
) -> ArrayRecord:
    record = _from_arrays({})
    for name, array in array_dict.items():
        held = array.__dict__["data"]
        if isinstance(held, np.ndarray):
            record[name] = _holding(held, array.dtype, array.stype)
        else:
            record[name] = Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=held)
    if not keep_input:
        array_dict.clear()
    return record


for _owner, _name, _value in (
    (Array, "data", _Data()),
    (Array, "from_numpy_ndarray", classmethod(_array_from_numpy)),
    (Array, "numpy", _array_numpy),
    (ArrayRecord, "from_array_dict", classmethod(_record_from_arrays)),
):
    setattr(_owner, _name, _value)


def _aggregated(records: Sequence[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """The weighted mean of records; of a single one, as under ``sum``, its arrays themselves.

    Flower multiplies them by 1.0 and copies the result: two models' time and memory, between the nodes' work of one stage and
    of the next.
    """
    arrays = _fractions(records[0]) if len(records) == 1 else None
    if arrays is None or not math.isfinite(_weight(records[0], weighting_metric_name) or math.nan):
        return aggregate_arrayrecords(list(records), weighting_metric_name)
    return ArrayRecord(arrays)


def _fractions(record: RecordDict) -> dict[str, Array] | None:
    """The arrays of a record, if 1.0 times each is that array: integers would become fractions, and one name twice a sum."""
    arrays: dict[str, Array] = {}
    for entries in record.array_records.values():
        for name, array in entries.items():
            held = array.__dict__["data"]
            if not isinstance(held, np.ndarray) or held.dtype.kind != "f" or name in arrays:
                return None
            arrays[name] = array
    return arrays


def _weight(record: RecordDict, name: str) -> float:
    for metrics in record.metric_records.values():
        found = metrics.get(name)
        return float(found) if isinstance(found, (int, float)) else 0.0
    return 0.0


setattr(fedavg, "aggregate_arrayrecords", _aggregated)  # noqa: B010  # flwr types it as its own function


def valid_type(message_type: object) -> bool:
    """Tell whether this is ``train``, ``evaluate`` or ``query``, with ``.action`` or without."""
    return (
        isinstance(message_type, str)
        and message_type.partition(".")[0] in ("train", "evaluate", "query")
        and validate_message_type(message_type)
    )


def handles(app: ClientApp, message_type: str) -> bool:
    """Tell whether the app has a function for messages of this type."""
    name = message_type if "." in message_type else f"{message_type}.default"
    return app._call is not None or name in app._registered_funcs


def instruction(records: RecordDict, message_type: str, *, run_id: int, node_id: int, number: int) -> Message:
    """Return a message as a ClientApp receives it."""
    metadata = Metadata(
        run_id=run_id,
        message_id=f"message-{number}",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id="",
        created_at=now().timestamp(),
        ttl=DEFAULT_TTL,
        message_type=message_type,
    )
    return make_message(metadata, content=records)


def answer(message: Message, message_id: str, reply: RecordDict | str) -> Message:
    """Return the reply to a message as a ServerApp receives it: records, or the code of an error."""
    message.metadata.__dict__["_message_id"] = message_id
    if isinstance(reply, str):
        return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reply), reply_to=message)
    return Message(reply, reply_to=message)


def load_app(reference: str) -> Any:
    """Import ``module:attribute``, the attribute dotted or not; what the import raises passes through."""
    module, _, attributes = reference.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{attributes}".split(".")):
        raise ImportError(f"not 'module:attribute': {reference}")
    return reduce(getattr, attributes.split("."), importlib.import_module(module))
