"""Plans the fewest queries for a set of partitions, and turns their answers into partitions of the lake."""
