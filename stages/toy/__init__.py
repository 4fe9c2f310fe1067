"""Models made on the spot, for the demo and for benchmarks."""
