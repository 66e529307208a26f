"""Resistance of hot steel to deformation: what the material contributes to the roll force.

Every function takes and returns float64 arrays (or floats) that broadcast against each other. Sources:

- Shida, S.: Empirical formula of flow stress of carbon steels. J. JSTP 10 (1969) no. 103, 610-617. Given in English in
  Lenard, J. G.: Primer on Flat Rolling, Elsevier 2007, ch. 8. Valid for C < 1.2 %, 700-1200 C, strain < 0.7,
  strain rate 0.1-100 1/s.
- Kirihata, A., Siciliano, F., Maccagno, T. M., Jonas, J. J.: Mathematical modelling of mean flow stress during the hot
  strip rolling of multiply-alloyed medium carbon steels. ISIJ Int. 38 (1998) 187-195: alloying elements.
- Hodgson, P. D., Gibbs, R. K.: A mathematical model to predict the mechanical properties of hot rolled C-Mn and
  microalloyed steels. ISIJ Int. 32 (1992) 1329-1338: static recrystallisation between passes.
- Andrade, H. L., Akben, M. G., Jonas, J. J.: Effect of molybdenum, niobium and vanadium on static recovery and
  recrystallization and on solute strengthening in microalloyed steels. Metall. Trans. A 14 (1983) 1967-1977.
- Sellars, C. M.: The kinetics of softening processes during hot working of austenite. Czech. J. Phys. B 35 (1985)
  239-248: mixture rule for the grain size of partly recrystallised austenite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

KGF_PER_MM2_IN_MPA = 9.80665
GAS_CONSTANT = 8.314
STRAIN_LIMIT = 0.7
"""Largest strain of Shida's tests; beyond it the material is taken as saturated."""
NIOBIUM_DECADE = 0.03
"""Mass % of niobium that delays recrystallisation tenfold at 1100 C."""
PLAIN_MANGANESE = 0.6
"""Mass % of manganese in the plain carbon steels to which the alloying factor is normed."""


def transformation_temperature(carbon: Floats) -> Floats:
    """Return Shida's T_p in kelvin / 1000, below which ferrite softens the steel: 0.95 (C + 0.41) / (C + 0.32)."""
    return 0.95 * (carbon + 0.41) / (carbon + 0.32)


def base_stress(carbon: Floats, temperature_k: Floats) -> Floats:
    """Return Shida's stress sigma_f in MPa at strain 0.2 and 10 1/s.

    With T = kelvin / 1000: above T_p, 0.28 exp(5 / T - 0.01 / (C + 0.05)) kgf/mm2; below, T_p stands for T and
    g = 30 (C + 0.9) (T - 0.95 (C + 0.49) / (C + 0.42))^2 + (C + 0.06) / (C + 0.09) multiplies it.
    """
    t = temperature_k / 1000.0
    t_p = transformation_temperature(carbon)
    ferrite = 30.0 * (carbon + 0.9) * (t - 0.95 * (carbon + 0.49) / (carbon + 0.42)) ** 2
    ferrite = ferrite + (carbon + 0.06) / (carbon + 0.09)
    g = np.where(t >= t_p, 1.0, ferrite)
    stress: Floats = 0.28 * g * np.exp(5.0 / np.maximum(t, t_p) - 0.01 / (carbon + 0.05))
    return stress * KGF_PER_MM2_IN_MPA


def rate_exponent(carbon: Floats, temperature_k: Floats) -> Floats:
    """Return Shida's strain-rate exponent m.

    Above T_p: (-0.019 C + 0.126) T + 0.075 C - 0.05; below: (0.081 C - 0.154) T - 0.019 C + 0.207 + 0.027 / (C + 0.32).
    """
    t = temperature_k / 1000.0
    above = (-0.019 * carbon + 0.126) * t + 0.075 * carbon - 0.05
    below = (0.081 * carbon - 0.154) * t - 0.019 * carbon + 0.207 + 0.027 / (carbon + 0.32)
    return np.where(t >= transformation_temperature(carbon), above, below)


def mean_hardening(carbon: Floats, retained: Floats, strain: Floats) -> Floats:
    """Return the mean of Shida's hardening function over a pass that starts at the retained strain.

    The function is f(e) = 1.3 (e / 0.2)^n - 0.3 (e / 0.2), n = 0.41 - 0.07 C, and f(0.2) = 1; its integral is exact.
    """
    n = 0.41 - 0.07 * carbon

    def integral(e: Floats) -> Floats:
        return 1.3 * 0.2 / (n + 1.0) * (e / 0.2) ** (n + 1.0) - 0.75 * e**2

    end = np.minimum(retained + strain, STRAIN_LIMIT)
    start = np.maximum(end - strain, 0.0)
    mean: Floats = (integral(end) - integral(start)) / (end - start)
    return mean


def alloying_factor(mn: Floats, nb: Floats, cr: Floats, mo: Floats) -> Floats:
    """Return the strengthening by alloying elements (mass %), 1 for a plain carbon steel with 0.6 % Mn.

    Kirihata et al.: 0.835 + 0.51 Nb + 0.098 Mn + 0.128 Cr^0.8 + 0.144 Mo^0.3, normed here because Shida's equation
    already holds the manganese of plain carbon steels. Vanadium and nickel are left out: no simulated grade has them.
    """
    factor: Floats = 0.835 + 0.51 * nb + 0.098 * mn + 0.128 * cr**0.8 + 0.144 * mo**0.3
    return factor / (0.835 + 0.098 * PLAIN_MANGANESE)


def half_softening_time(nb: Floats, strain: Floats, grain_um: Floats, temperature_k: Floats) -> Floats:
    """Return the seconds until half of the austenite is recrystallised after a pass.

    C-Mn steel (Hodgson and Gibbs): 2.3e-15 e^-2.5 d^2 exp(230000 / RT). Niobium multiplies it, with x = Nb / 0.03, by
    10^x exp(x 100000 / R (1 / T - 1 / 1373)): for 0.03 % tenfold at 1100 C and thirtyfold at 950 C. That factor is our
    own simple form, of the size of the measured delays (Andrade et al.), not a published fit: published niobium
    equations turn around outside the strains they were fitted to.
    """
    rt = GAS_CONSTANT * temperature_k
    plain = 2.3e-15 * strain**-2.5 * grain_um**2 * np.exp(230000.0 / rt)
    share = nb / NIOBIUM_DECADE
    cold = 100000.0 / GAS_CONSTANT * (1.0 / temperature_k - 1.0 / 1373.0)
    retarded: Floats = plain * 10.0**share * np.exp(share * cold)
    return retarded


def recrystallised(time_s: Floats, half_time_s: Floats) -> Floats:
    """Return the recrystallised fraction after a time, 1 - exp(-0.693 t / t_half) (Avrami, exponent 1)."""
    return 1.0 - np.exp(-0.693 * time_s / half_time_s)


def next_grain(grain_um: Floats, strain: Floats, temperature_k: Floats, fraction: Floats) -> Floats:
    """Return the austenite grain size in um after partial recrystallisation.

    d_rex = 343 e^-0.5 d^0.4 exp(-45000 / RT) (Hodgson and Gibbs); mixture X^(4/3) d_rex + (1 - X)^2 d (Sellars).
    """
    new = 343.0 * strain**-0.5 * grain_um**0.4 * np.exp(-45000.0 / (GAS_CONSTANT * temperature_k))
    mixed = fraction ** (4.0 / 3.0) * np.minimum(new, grain_um) + (1.0 - fraction) ** 2 * grain_um
    grown: Floats = np.maximum(mixed, 10.0)
    return grown
