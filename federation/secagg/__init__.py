"""Adding replies so that only their sum is seen: fixed-point encoding, layout, running sum, masks.

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
from federation.secagg.announcements import Announcements, MaskingError, Public, Scope
from federation.secagg.bounds import check_encoding, check_weights, choose_encoding
from federation.secagg.cohorts import (
    MINIMUM_ENTITIES,
    CohortError,
    check_size,
    colluders,
    dropouts,
    dropouts_apart,
    neighbourhood,
    threshold,
)
from federation.secagg.differencing import DifferenceError, Opened, check_difference
from federation.secagg.encoding import clip_difference, encode
from federation.secagg.errors import AggregateVoidError, EncodingError, ReplyFormatError, WeightError
from federation.secagg.graph import MaskGraph
from federation.secagg.keystream import MaskKey, add_masks
from federation.secagg.layout import Array, Arrays, Layout, Reply, Segment, expected_arrays
from federation.secagg.leak import OUTCOME_BITS, job_bits, reply_bits, step_bits, worst_bits
from federation.secagg.mask_keys import MaskContext, cohort_digest
from federation.secagg.node_masks import NodeMasks
from federation.secagg.noising import (
    add_noise,
    check_enough_left,
    check_noise,
    least_left,
    multiplier_for,
    noise_shares,
    noised_encoding,
    shares_of,
    step_micro_rho,
)
from federation.secagg.reply import EncodedReply, reply_bytes, reply_digest, reply_header
from federation.secagg.rings import Z32, Z64, BinaryRing, PrimeRing, Ring
from federation.secagg.shamir import ShareError
from federation.secagg.stream import ReplyStream
from federation.secagg.survivors import (
    SurvivorsError,
    WithdrawnError,
    check_acknowledgements,
    check_entities,
    check_inputs,
    check_withdrawals,
)
from federation.secagg.unmasking import residual_masks

__all__ = [
    "MINIMUM_ENTITIES",
    "OUTCOME_BITS",
    "Z32",
    "Z64",
    "Accumulator",
    "Aggregate",
    "AggregateVoidError",
    "Announcements",
    "Array",
    "Arrays",
    "BinaryRing",
    "CohortError",
    "DifferenceError",
    "EncodedReply",
    "EncodingError",
    "Layout",
    "MaskContext",
    "MaskGraph",
    "MaskKey",
    "MaskingError",
    "NodeMasks",
    "Opened",
    "PrimeRing",
    "Public",
    "Reply",
    "ReplyFormatError",
    "ReplyStream",
    "Ring",
    "Scope",
    "Segment",
    "ShareError",
    "SurvivorsError",
    "WeightError",
    "WithdrawnError",
    "add_masks",
    "add_noise",
    "check_acknowledgements",
    "check_difference",
    "check_encoding",
    "check_enough_left",
    "check_entities",
    "check_inputs",
    "check_noise",
    "check_size",
    "check_weights",
    "check_withdrawals",
    "choose_encoding",
    "clip_difference",
    "cohort_digest",
    "colluders",
    "dropouts",
    "dropouts_apart",
    "encode",
    "expected_arrays",
    "job_bits",
    "least_left",
    "multiplier_for",
    "neighbourhood",
    "noise_shares",
    "noised_encoding",
    "reply_bits",
    "reply_bytes",
    "reply_digest",
    "reply_header",
    "residual_masks",
    "shares_of",
    "step_bits",
    "step_micro_rho",
    "threshold",
    "worst_bits",
]
