"""What runs whole federations: a single run, the benchmarks."""
