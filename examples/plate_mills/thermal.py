"""Temperature of the plate from pass to pass. Kelvin, seconds, mm and MPa; one mean temperature a plate.

- Radiation: Stefan-Boltzmann with emissivity 0.8, both faces, surroundings neglected (under 1 % at rolling heat).
- Contact with the rolls: two half-spaces in contact, Carslaw, H. S., Jaeger, J. C.: Conduction of Heat in Solids,
  2nd ed., Oxford 1959, section 2.8; half of it, because scale insulates.
- Surface: parabolic profile over the layer that cools between passes. Goodman, T. R.: The heat-balance integral and its
  application to problems involving a change of phase. Trans. ASME 80 (1958) 335-342 gives its depth as sqrt(6 a t),
  39 mm after 45 s, and half the thickness at most.
"""

from __future__ import annotations

import numpy as np

from .flow_stress import Floats

STEFAN_BOLTZMANN = 5.670e-8
EMISSIVITY = 0.8
DENSITY = 7500.0
HEAT_CAPACITY = 650.0
CONDUCTIVITY = 28.0
ROLL_TEMPERATURE_K = 343.0
HEAT_FROM_WORK = 0.9
SCALE_INSULATION = 0.5
COOLED_LAYER_MM = 39.0


def _cooling_constant(thickness_mm: Floats) -> Floats:
    return 6.0 * EMISSIVITY * STEFAN_BOLTZMANN / (DENSITY * HEAT_CAPACITY * thickness_mm / 1000.0)


def after_radiation(temperature_k: Floats, thickness_mm: Floats, seconds: Floats) -> Floats:
    """Return the temperature after radiating: the exact solution 1/T^3 = 1/T0^3 + 6 e s t / (rho c h)."""
    return (temperature_k**-3.0 + _cooling_constant(thickness_mm) * seconds) ** (-1.0 / 3.0)


def seconds_to_cool(temperature_k: Floats, target_k: Floats, thickness_mm: Floats) -> Floats:
    """Return how long a plate waits until it has radiated down to the target; 0 if it is already there."""
    return np.maximum(target_k**-3.0 - temperature_k**-3.0, 0.0) / _cooling_constant(thickness_mm)


def after_pass(
    temperature_k: Floats, mean_thickness_mm: Floats, strain: Floats, pressure_mpa: Floats, contact_s: Floats
) -> Floats:
    """Return the temperature after a pass: heat of work gained, heat of contact lost.

    Gain 0.9 p ln(h0 / h1) / (rho c); loss 2 (T - T_roll) sqrt(a t / pi) / h, halved by scale.
    """
    gain = HEAT_FROM_WORK * pressure_mpa * 1e6 * strain / (DENSITY * HEAT_CAPACITY)
    diffusivity = CONDUCTIVITY / (DENSITY * HEAT_CAPACITY)
    depth_mm = 1000.0 * np.sqrt(diffusivity * contact_s / np.pi)
    loss = SCALE_INSULATION * 2.0 * (temperature_k - ROLL_TEMPERATURE_K) * depth_mm / mean_thickness_mm
    return temperature_k + gain - loss


def surface_temperature(temperature_k: Floats, thickness_mm: Floats) -> Floats:
    """Return what a pyrometer sees: the mean less q d / (3 k), q the heat radiated by one face, d the cooled layer."""
    heat = EMISSIVITY * STEFAN_BOLTZMANN * temperature_k**4
    layer_m = np.minimum(thickness_mm / 2.0, COOLED_LAYER_MM) / 1000.0
    return temperature_k - heat * layer_m / (3.0 * CONDUCTIVITY)
