"""What gRPC reads from the environment, once, when it is imported; imported before it wherever it is."""

from __future__ import annotations

import os
import sys

from federation.crypto import GRPC_CIPHER_SUITES

TOO_LATE = "grpc" in sys.modules and os.environ.get("GRPC_SSL_CIPHER_SUITES") != GRPC_CIPHER_SUITES
"""Whether gRPC was there before: it would take TLS 1.2. What the suites do is said where they are named."""

os.environ["GRPC_SSL_CIPHER_SUITES"] = GRPC_CIPHER_SUITES
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
