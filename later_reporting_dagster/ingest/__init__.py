"""Plan queries for partitions, fetch them and write the partitions to the lake. No Dagster."""
