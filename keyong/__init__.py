"""What people touch: the command, its texts, the demo and the benchmarks. Composition of the packages below; no rules."""
