"""Mechanics of the roll gap: from flow stress to roll force. Lengths in mm, stresses in MPa, forces in N.

- Sims, R. B.: The calculation of roll force and torque in hot rolling mills. Proc. IMechE 168 (1954) 191-200.
- Hitchcock, J. H.: Elastic deformation of rolls during cold rolling. ASME Research Publication (1935) 33-41.
- Tselikov, A. I.: Stress and Strain in Metal Rolling. MIR 1967: influence of the rigid ends on a thick plate.
- Ekelund, S.: Analysis of factors influencing rolling pressure and power consumption. Steel 93 (1933): friction.
- Ford, H., Alexander, J. M.: Simplified hot-rolling calculations. J. Inst. Metals 92 (1963-64) 397-404.
"""

from __future__ import annotations

import numpy as np

from .flow_stress import Floats

ROLL_YOUNG_MPA = 210_000.0
ROLL_POISSON = 0.3
HITCHCOCK = 16.0 * (1.0 - ROLL_POISSON**2) / (np.pi * ROLL_YOUNG_MPA)
"""mm2/N; 2.2e-5 for steel rolls."""
PLANE_STRAIN = 2.0 / np.sqrt(3.0)
STICKING_FRICTION = 0.40
"""Coefficient at which Sims' assumption of sticking is taken as met."""


def flattened_radius(radius: Floats, force: Floats, width: Floats, draft: Floats) -> Floats:
    """Return Hitchcock's radius of the loaded roll, R' = R (1 + C F / (w (h0 - h1))), C = 16 (1 - v^2) / (pi E)."""
    return radius * (1.0 + HITCHCOCK * force / (width * draft))


def contact_length(radius: Floats, draft: Floats) -> Floats:
    """Return the projected arc of contact, sqrt(R' (h0 - h1))."""
    length: Floats = np.sqrt(radius * draft)
    return length


def strain_rate(speed_mm_s: Floats, length: Floats, entry: Floats, exit_: Floats) -> Floats:
    """Return the mean equivalent strain rate of the pass in 1/s, 2/sqrt(3) (v / L) ln(h0 / h1)."""
    rate: Floats = PLANE_STRAIN * speed_mm_s / length * np.log(entry / exit_)
    return rate


def sims_factor(radius: Floats, entry: Floats, exit_: Floats) -> Floats:
    """Return Sims' geometry factor Q of hot rolling with sticking friction.

    With r = (h0 - h1) / h0 and s = sqrt(r / (1 - r)), a = sqrt(R' / h1), neutral angle
    phi = tan(pi / (8 a) ln(1 - r) + atan(s) / 2) / a and thickness there y = h1 + 2 R' (1 - cos phi):
    Q = pi / (2 s) atan(s) - pi / 4 - (a / s) ln(y / h1) + (a / (2 s)) ln(1 / (1 - r)).
    """
    r = (entry - exit_) / entry
    s = np.sqrt(r / (1.0 - r))
    a = np.sqrt(radius / exit_)
    phi = np.tan(np.pi / (8.0 * a) * np.log(1.0 - r) + 0.5 * np.arctan(s)) / a
    # 2 sin^2(phi / 2) is 1 - cos(phi) without its loss of digits at small angles.
    neutral = np.log1p(4.0 * radius * np.sin(phi / 2.0) ** 2 / exit_)
    q: Floats = np.pi / (2.0 * s) * np.arctan(s) - np.pi / 4.0 - a / s * neutral - a / (2.0 * s) * np.log(1.0 - r)
    return q


def thick_plate_factor(length: Floats, mean_thickness: Floats) -> Floats:
    """Return the rise of pressure where the deformation does not reach the core: (L / h)^-0.4 for L < h (Tselikov).

    Sims' slab analysis loses it, and a plate mill's first passes live on it. Hill's slip-line field of a strip between
    narrow punches rises alike (2.57 at h / L = 8.7; this power gives 2.4).
    """
    return np.maximum(mean_thickness / length, 1.0) ** 0.4


def friction(temperature_c: Floats, roll_finish: Floats, roll_km: Floats) -> Floats:
    """Return Ekelund's coefficient 1.05 - 0.0005 T, scaled by the roll's finish and by its wear.

    Rolls roughen with the length they have rolled: up to 10 % more friction, with a scale of 12 km (our assumption).
    """
    return roll_finish * (1.05 - 0.0005 * temperature_c) * (1.0 + 0.10 * (1.0 - np.exp(-roll_km / 12.0)))


def slip_correction(mu: Floats, length: Floats, mean_thickness: Floats) -> Floats:
    """Return the pressure's departure from sticking, 1 + (mu - 0.40) L / (2 h).

    The first-order friction hill of the slab method, taken relative to the friction at which Sims' factor holds.
    """
    return 1.0 + (mu - STICKING_FRICTION) * length / (2.0 * mean_thickness)


def geometry_factor(radius: Floats, entry: Floats, exit_: Floats, mu: Floats) -> Floats:
    """Return mean roll pressure over plane-strain flow stress: Sims, thick plate and friction together."""
    length, mean = contact_length(radius, entry - exit_), (entry + exit_) / 2.0
    return sims_factor(radius, entry, exit_) * thick_plate_factor(length, mean) * slip_correction(mu, length, mean)


def roll_force(
    stress: Floats, radius: Floats, entry: Floats, exit_: Floats, width: Floats, mu: Floats, iterations: int = 5
) -> tuple[Floats, Floats]:
    """Return the roll force in N and the flattened radius in mm: F = 2/sqrt(3) sigma w L Q, iterated with Hitchcock.

    The flow stress is held fixed over the iteration: flattening changes the strain rate by a few per cent and its
    exponent is near 0.1.
    """
    flat = np.asarray(radius, dtype=np.float64)
    force = np.zeros_like(flat)
    for _ in range(iterations):
        length = contact_length(flat, entry - exit_)
        force = PLANE_STRAIN * stress * width * length * geometry_factor(flat, entry, exit_, mu)
        flat = flattened_radius(radius, force, width, entry - exit_)
    return force, flat
