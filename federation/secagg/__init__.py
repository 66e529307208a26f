"""Adding replies so that only their sum is seen: fixed-point encoding, layout, running sum.

Pure: arrays and bytes in, arrays and bytes out. Both sides derive the `Layout` from the broadcast content and the
plan; a node encodes its reply minus what was sent, with the weight its trusted line counted; the coordinator adds
modulo 2^32 or 2^64.

>>> import numpy as np
>>> from types import SimpleNamespace
>>> from federation.statements import StageOutput
>>> sent = {"arrays": {"w": np.zeros(2, dtype=np.float32)}}
>>> layout = Layout.derive(sent, StageOutput(sent=True))
>>> encoding = choose_encoding([(10, 10), (30, 30)])
>>> total = Accumulator(layout, encoding, n=2)
>>> for value, weight in ((1.0, 10), (2.0, 30)):
...     reply = SimpleNamespace(arrays={"arrays": {"w": np.full(2, value, dtype=np.float32)}}, metrics={})
...     total.add(encode(reply, sent, layout, encoding, weight, n=2))
>>> aggregate = total.finish(2, sent)
>>> aggregate.arrays["arrays"]["w"].tolist(), aggregate.total_weight
([1.75, 1.75], 40)
"""

from federation.secagg.accumulator import Accumulator, Aggregate
from federation.secagg.bounds import check_encoding, choose_encoding
from federation.secagg.encoding import clip_difference, encode
from federation.secagg.errors import AggregateVoidError, EncodingError, ReplyFormatError, WeightError
from federation.secagg.layout import Array, Arrays, Layout, Reply, Segment, expected_arrays
from federation.secagg.reply import EncodedReply, reply_bytes, reply_digest, reply_header
from federation.secagg.stream import ReplyStream

__all__ = [
    "Accumulator",
    "Aggregate",
    "AggregateVoidError",
    "Array",
    "Arrays",
    "EncodedReply",
    "EncodingError",
    "Layout",
    "Reply",
    "ReplyFormatError",
    "ReplyStream",
    "Segment",
    "WeightError",
    "check_encoding",
    "choose_encoding",
    "clip_difference",
    "encode",
    "expected_arrays",
    "reply_bytes",
    "reply_digest",
    "reply_header",
]
