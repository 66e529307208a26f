"""Benchmarks: each figure with its target, and with what it is compared to in the same run."""
