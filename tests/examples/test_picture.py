"""The picture that examples draw: well-formed, each bar as tall as its value, nothing of a name taken as markup."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.common.picture import COLOURS, bars  # noqa: E402


def test_bars_are_as_tall_as_their_values() -> None:
    root = ElementTree.fromstring(bars("A < B", "mg", ["a", "b & c"], {"alone": [2.0, 4.0], "pooled": [1.0, 8.0]}))
    drawn = [one for one in root.iter() if one.tag.endswith("rect") and one.get("fill") in COLOURS and one.get("y")]
    heights = [float(one.get("height", "")) for one in drawn][:4]
    assert [round(height / heights[2], 1) for height in heights] == [2.0, 4.0, 1.0, 8.0] or [
        round(height / heights[1], 1) for height in heights
    ] == [2.0, 1.0, 4.0, 8.0]
    assert "b & c" in [one.text for one in root.iter()]
