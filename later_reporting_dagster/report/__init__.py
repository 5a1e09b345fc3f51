"""Make the report from the posts in a lake: compute its numbers, its charts, and one self-contained HTML page."""
