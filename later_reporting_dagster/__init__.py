"""Later's Reporting API as Dagster assets: post performance in Parquet, organic against paid."""
