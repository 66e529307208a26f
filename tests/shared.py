"""Where the real data and the outside test vectors lie; a test that needs them skips where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("KEYONG_SHARED", Path(__file__).parents[2] / "shared")).resolve()
"""Absolute: a test that changes its folder still finds it."""
