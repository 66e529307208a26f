"""The examples are programs, not an installed package: put the repository and the app on the path."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
for place in (ROOT, ROOT / "examples" / "plate_mills" / "app"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
