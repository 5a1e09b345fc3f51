"""Benchmarks of fetching, rollups, automation and compaction: see `python -m benchmarks --help`."""
