"""The same vector under CKKS as NVFLARE configures it: ``ckks.py PARAMETERS NODES``; processor seconds and bytes of one node."""

import sys
import time

import numpy as np
import tenseal

size, nodes = map(int, sys.argv[1:])
context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40])
context.global_scale = 2**40
values = np.random.default_rng(1).normal(size=size)
began = time.process_time()
parts = [tenseal.ckks_vector(context, values[at : at + 4096].tolist()) for at in range(0, size, 4096)]
sealed = [part.serialize() for part in parts]
print(time.process_time() - began, sum(map(len, sealed)))
