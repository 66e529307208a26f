"""Four plate mills train one rolling-force model without showing their process parameters.

The records are simulated (see ``README.md``): ``simulate`` makes them, ``app`` is the Flower app that learns from them,
``compare`` puts the federated model beside what each mill reaches alone, ``predict`` uses a trained model.

    >>> from examples.plate_mills.simulate import simulate_mill
    >>> passes = simulate_mill("a", seed=1, plates=20)
    >>> float(passes["roll_force_kn"].min()) > 0
    True
"""
