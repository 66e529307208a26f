"""Makes `dp_accounting.json`: what Google's dp-accounting 0.6.0 says a cost means.

It is no dependency, because it wants an attrs older than ours. Again, in an environment of its own::

    pip install dp-accounting==0.6.0
    python tests/federation/privacy/make_vectors.py > tests/federation/privacy/dp_accounting.json
"""

import json

import dp_accounting
import numpy as np
from dp_accounting.rdp import RdpAccountant

# its own default orders are few; with these its minimum is as fine as ours
ORDERS = np.concatenate([1 + np.logspace(-4, 4, 20_001)])


def main() -> None:
    """Print the vectors."""
    found = []
    for rho in (0.0005, 0.005, 0.02, 0.1, 0.5, 1.0, 4.0):
        for delta in (1e-9, 1e-6, 1e-5):
            zcdp = RdpAccountant(orders=ORDERS).compose(dp_accounting.ZCDpEvent(rho))
            gaussian = RdpAccountant(orders=ORDERS).compose(dp_accounting.GaussianDpEvent((2 * rho) ** -0.5))
            found.append([rho, delta, float(zcdp.get_epsilon(delta)), float(gaussian.get_epsilon(delta))])
    composed = []
    for sigma, count in ((10.0, 100), (3.0, 20), (50.0, 1000)):
        event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(sigma), count)
        composed.append([sigma, count, float(RdpAccountant(orders=ORDERS).compose(event).get_epsilon(1e-6))])
    print(
        json.dumps(
            {"rho, delta, epsilon (zCDP), epsilon (Gaussian)": found, "sigma, count, epsilon": composed}, indent=1
        )
    )


main()
