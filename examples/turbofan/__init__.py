"""Five airlines' engines, one estimate of the life they have left; see README.md.

Importing it makes the Flower app in `app/` importable under its own name, `remaininglife`, as Flower itself does for an app.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported, so before that
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
APP = Path(__file__).parent / "app"
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))
