"""The physics of the simulated mills against published forms, limits and monotonicity."""

from __future__ import annotations

import numpy as np
import pytest

from examples.plate_mills import flow_stress, roll_gap, thermal

PASSES = [(400.0, 10.0, 8.0), (500.0, 30.0, 24.0), (500.0, 30.0, 20.0), (300.0, 20.0, 14.0), (1000.0, 200.0, 180.0)]


def arr(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def force(carbon=0.16, kelvin=1273.0, exit_=24.0, km=0.0) -> float:
    """Roll force in N of one pass from 30 mm at 2 m width, Shida's stress and all."""
    entry, radius = 30.0, 500.0
    strain = roll_gap.PLANE_STRAIN * np.log(entry / exit_)
    rate = roll_gap.strain_rate(arr(2000.0), roll_gap.contact_length(arr(radius), arr(entry - exit_)), entry, exit_)
    stress = flow_stress.base_stress(arr(carbon), arr(kelvin))
    stress = stress * flow_stress.mean_hardening(arr(carbon), arr(0.0), arr(strain))
    stress = stress * (rate / 10.0) ** flow_stress.rate_exponent(arr(carbon), arr(kelvin))
    mu = roll_gap.friction(arr(kelvin - 273.15), arr(1.0), arr(km))
    return float(roll_gap.roll_force(stress, arr(radius), arr(entry), arr(exit_), arr(2000.0), mu)[0][0])


@pytest.mark.parametrize(("radius", "entry", "exit_"), PASSES)
def test_sims_factor_is_the_integral_of_sims_pressure(radius, entry, exit_):
    """Sims (1954): p/k = pi/4 (1 + ln(h/h1)) + a atan(a phi) at the exit, mirrored with h0 at the entry.

    h = h1 + R phi^2; the closed form takes h at the neutral point from the circle, hence 0.5 %.
    """
    a, end = np.sqrt(radius / exit_), np.sqrt((entry - exit_) / radius)
    phi = np.linspace(0.0, end, 20001)
    h = exit_ + radius * phi**2
    exit_side = np.pi / 4 * (1 + np.log(h / exit_)) + a * np.arctan(a * phi)
    entry_side = np.pi / 4 * (1 + np.log(h / entry)) + a * (np.arctan(a * end) - np.arctan(a * phi))
    mean = np.trapezoid(np.minimum(exit_side, entry_side), phi) / end
    assert roll_gap.sims_factor(arr(radius), arr(entry), arr(exit_))[0] == pytest.approx(mean, rel=5e-3)


@pytest.mark.parametrize(("radius", "entry", "exit_"), PASSES)
def test_sims_factor_agrees_with_ford_and_alexander(radius, entry, exit_):
    """Their simplification (1963) of Sims: Q = (pi/2 + L / (h0 + h1)) / 2, said to be within a few per cent."""
    length = np.sqrt(radius * (entry - exit_))
    simple = 0.5 * (np.pi / 2 + length / (entry + exit_))
    assert roll_gap.sims_factor(arr(radius), arr(entry), arr(exit_))[0] == pytest.approx(simple, rel=0.03)


def test_sims_factor_tends_to_a_quarter_pi_for_a_vanishing_arc():
    assert roll_gap.sims_factor(arr(500.0), arr(100.0), arr(100.0 - 1e-6))[0] == pytest.approx(np.pi / 4, rel=1e-3)


def test_thick_plate_factor_follows_hills_punch():
    """Hill's slip-line field: 1 at h = L and 1 + pi/2 at h = 8.72 L; Tselikov's power stays within 10 %."""
    assert roll_gap.thick_plate_factor(arr(1.0), arr(1.0))[0] == 1.0
    assert roll_gap.thick_plate_factor(arr(1.0), arr(8.72))[0] == pytest.approx(1 + np.pi / 2, rel=0.10)


def test_hitchcock_constant_is_the_textbook_value():
    assert pytest.approx(2.2e-5, rel=0.02) == roll_gap.HITCHCOCK
    assert roll_gap.flattened_radius(arr(500.0), arr(1e7), arr(1000.0), arr(5.0))[0] == pytest.approx(522.1, abs=0.5)


@pytest.mark.parametrize("carbon", [0.05, 0.15, 0.40, 0.80, 1.10])
def test_shida_joins_at_the_transformation(carbon):
    """A wrong sign or constant in either branch breaks the join: the published equation is continuous within 2 %."""
    t_p = 1000.0 * flow_stress.transformation_temperature(arr(carbon))
    above, below = flow_stress.base_stress(arr(carbon), t_p + 1e-3), flow_stress.base_stress(arr(carbon), t_p - 1e-3)
    assert above[0] == pytest.approx(below[0], rel=0.02)
    jump = flow_stress.rate_exponent(arr(carbon), t_p + 1e-3) - flow_stress.rate_exponent(arr(carbon), t_p - 1e-3)
    assert abs(jump[0]) < 1e-3


def test_shida_at_its_reference_point():
    """0.28 exp(5/1.273 - 0.01/0.15) kgf/mm2 at C 0.10 %, 1273 K, strain 0.2, 10 1/s: 13.3 kgf/mm2."""
    assert flow_stress.base_stress(arr(0.10), arr(1273.0))[0] == pytest.approx(13.3 * 9.80665, rel=0.01)


def test_mean_hardening_is_the_integral():
    start, strain, carbon = 0.1, 0.25, 0.2
    n = 0.41 - 0.07 * carbon
    e = np.linspace(start, start + strain, 4001)
    mean = np.trapezoid(1.3 * (e / 0.2) ** n - 0.3 * e / 0.2, e) / strain
    assert flow_stress.mean_hardening(arr(carbon), arr(start), arr(strain))[0] == pytest.approx(mean, rel=1e-6)


def test_niobium_retards_softening():
    time = [
        flow_stress.half_softening_time(arr(nb), arr(0.2), arr(100.0), arr(1223.0))[0] for nb in (0.0, 0.02, 0.03, 0.05)
    ]
    assert time == sorted(time)
    assert time[-1] > 10 * time[0]
    assert flow_stress.recrystallised(arr(time[0]), arr(time[0]))[0] == pytest.approx(0.5, abs=1e-3)


def test_force_rises_with_carbon_reduction_and_worn_rolls_and_falls_with_temperature():
    assert force(carbon=0.05) < force(carbon=0.15) < force(carbon=0.45)
    assert force(exit_=27.0) < force(exit_=24.0) < force(exit_=20.0)
    assert force(kelvin=1223.0) > force(kelvin=1273.0) > force(kelvin=1373.0)
    assert force(km=30.0) > force(km=0.0)


def test_force_is_of_industrial_size():
    """A 30 to 24 mm pass at 1000 C and 2 m width takes some 10 to 25 MN."""
    assert 10e6 < force() < 25e6


def test_radiation_solves_its_equation():
    kelvin, thickness, wait = arr(1400.0), arr(20.0), 37.0
    euler, steps = kelvin.copy(), 20000
    for _ in range(steps):
        loss = 2 * thermal.EMISSIVITY * thermal.STEFAN_BOLTZMANN * euler**4
        euler = euler - loss / (thermal.DENSITY * thermal.HEAT_CAPACITY * thickness / 1000) * wait / steps
    after = thermal.after_radiation(kelvin, thickness, arr(wait))
    assert after[0] == pytest.approx(euler[0], rel=1e-5)
    assert thermal.seconds_to_cool(kelvin, after, thickness)[0] == pytest.approx(wait, rel=1e-9)
