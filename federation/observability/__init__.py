"""What a serving process tells its operator: health, status and metrics, over HTTP and over a socket in its home.

>>> from federation.observability import Check, Health
>>> Health(checks=(Check(name="ledger", ok=True), Check(name="link", ok=False, own=False))).sound
True
"""

from federation.observability.face import AddressNotAllowedError, Answer, Face, Route, check_address
from federation.observability.health import Check, Health, Recent
from federation.observability.instruments import Known, ServiceMetrics, exposition
from federation.observability.local import NotServingError, ask, socket_of
from federation.observability.machine import free_bytes, spooled_bytes
from federation.observability.server import Observed, Observer

__all__ = [
    "AddressNotAllowedError",
    "Answer",
    "Check",
    "Face",
    "Health",
    "Known",
    "NotServingError",
    "Observed",
    "Observer",
    "Recent",
    "Route",
    "ServiceMetrics",
    "ask",
    "check_address",
    "exposition",
    "free_bytes",
    "socket_of",
    "spooled_bytes",
]
