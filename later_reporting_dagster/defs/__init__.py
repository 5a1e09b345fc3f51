"""What Dagster sees: assets with their runs and checks, partitions, resources, IO manager, schedules and sensors."""
