"""Posts to organic versus paid: Arrow table in, Arrow table out. No I/O."""
