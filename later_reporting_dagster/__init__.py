"""Ingest Later's Reporting API into a Parquet lake with Dagster, and compare organic with paid performance."""
