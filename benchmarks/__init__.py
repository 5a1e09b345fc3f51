"""Benchmarks: requests against their lower bound, time against a plain script, in the same run. `make bench`."""
