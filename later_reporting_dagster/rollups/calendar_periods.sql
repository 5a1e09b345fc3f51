-- The days, weeks or months of the stored files. A week begins on Monday.
CREATE OR REPLACE TABLE periods AS
SELECT DISTINCT
    CAST(date_trunc('{{ cadence }}', date) AS DATE) AS first_day,
    CAST(first_day + INTERVAL 1 {{ cadence }} AS DATE) - 1 AS last_day
FROM stored_files
