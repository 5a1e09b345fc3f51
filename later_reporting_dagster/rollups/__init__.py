"""Roll up posts to organic versus paid results: SQL files, and the Python that runs them over a lake."""
