"""The `later-reporting` command line."""
