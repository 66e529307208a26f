"""The four mills and the steels they roll: every parameter of the simulation that is not physics.

The mills are invented. Their ranges are of the size found in plate mills (barrels of 2.5 to 4 m, work rolls of 0.9 to
1.2 m diameter, forces mostly below 100 MN). No mill rolls everything: each has its products, and those of neighbours
overlap, as in a real consortium. The numbers were fixed before the first model was trained.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grade:
    """Nominal chemistry of a steel in mass %; ``hold_c`` is where controlled rolling ends its hold (None: no hold)."""

    name: str
    carbon: float
    mn: float
    nb: float = 0.0
    cr: float = 0.0
    mo: float = 0.0
    hold_c: float | None = None


GRADES: dict[str, Grade] = {
    grade.name: grade
    for grade in (
        Grade("mild", 0.13, 0.60),
        Grade("structural", 0.16, 1.35, nb=0.018),
        Grade("ship", 0.12, 1.40, nb=0.030, hold_c=900.0),
        Grade("linepipe", 0.06, 1.60, nb=0.050, mo=0.12, hold_c=850.0),
        Grade("vessel", 0.15, 0.70, cr=0.90, mo=0.45),
        Grade("wear", 0.22, 1.30, cr=0.60, mo=0.22),
        Grade("medium", 0.45, 0.70),
        Grade("tool", 0.65, 0.75, cr=0.30),
    )
}


@dataclass(frozen=True)
class Mill:
    """One plate mill: its products, its stand and its instruments.

    Ranges are (low, high), drawn uniformly; ``thickness_mm`` in its logarithm, because orders crowd at the thin end.
    ``plates`` is chosen so that a mill has 20,000 to 26,000 passes. The last five fields are never recorded.
    """

    code: str
    plates: int
    mix: dict[str, float]
    thickness_mm: tuple[float, float]
    width_mm: tuple[float, float]
    slab_mm: tuple[float, ...]
    slab_length_mm: tuple[float, float]
    radius_mm: tuple[float, float]
    speed_m_s: tuple[float, float]
    pass_strain: tuple[float, float]
    discharge_c: tuple[float, float]
    reversing_s: tuple[float, float]
    campaign_km: float
    roll_finish: float
    pyrometer_bias_c: float
    pyrometer_noise_c: float
    load_cell_gain: float
    load_cell_noise: float


MILLS: dict[str, Mill] = {
    mill.code: mill
    for mill in (
        Mill(
            "a", 1650, {"mild": 0.25, "structural": 0.40, "ship": 0.35}, (14.0, 45.0), (2200.0, 3400.0),
            (220.0, 250.0), (2200.0, 3600.0), (520.0, 600.0), (2.0, 5.0), (0.13, 0.22), (1150.0, 1220.0), (5.0, 11.0),
            30.0, 0.97, 5.0, 6.0, 1.010, 0.012,
        ),
        Mill(
            "b", 1450, {"structural": 0.25, "ship": 0.20, "linepipe": 0.55}, (14.0, 32.0), (2000.0, 3200.0),
            (220.0, 250.0, 300.0), (2400.0, 4000.0), (500.0, 560.0), (2.2, 5.5), (0.13, 0.20), (1120.0, 1180.0),
            (4.0, 9.0), 28.0, 0.95, -6.0, 5.0, 0.990, 0.010,
        ),
        Mill(
            "c", 1800, {"structural": 0.25, "vessel": 0.40, "wear": 0.35}, (25.0, 110.0), (1800.0, 3200.0),
            (250.0, 300.0, 350.0), (2000.0, 3200.0), (480.0, 540.0), (1.2, 3.2), (0.10, 0.20), (1160.0, 1240.0),
            (6.0, 14.0), 20.0, 1.0, 8.0, 8.0, 1.015, 0.014,
        ),
        Mill(
            "d", 2000, {"mild": 0.35, "structural": 0.15, "medium": 0.35, "tool": 0.15}, (8.0, 40.0), (1500.0, 2400.0),
            (160.0, 180.0, 220.0), (1600.0, 2600.0), (430.0, 490.0), (1.5, 4.0), (0.16, 0.28), (1140.0, 1230.0),
            (6.0, 13.0), 25.0, 0.96, -9.0, 9.0, 0.985, 0.016,
        ),
    )
}  # fmt: skip
