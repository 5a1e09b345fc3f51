"""The assets: for each, its spec and what a run of it does."""
