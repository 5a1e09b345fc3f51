"""Benchmarks of fetching, rollups and automation: see `python -m benchmarks --help`."""
