"""How long Flower's own averaging of a round takes: ``flower_sum.py PARAMETERS NODES REPETITIONS``, seconds on stdout."""

import sys
import time

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

size, nodes, repetitions = map(int, sys.argv[1:])
arrays = [np.random.default_rng(seed).normal(size=size).astype(np.float32) for seed in range(min(nodes, 10))]
records = [
    RecordDict({"arrays": ArrayRecord([arrays[at % len(arrays)]]), "metrics": MetricRecord({"num-examples": 10 + at})})
    for at in range(nodes)
]
best = float("inf")
for _ in range(repetitions):
    began = time.perf_counter()
    aggregate_arrayrecords(records, "num-examples")
    best = min(best, time.perf_counter() - began)
print(best)
