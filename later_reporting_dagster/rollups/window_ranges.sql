-- Relations of the days of each window, and of its previous period, which is compared by performance date only.
--
-- The windows and previous periods of a date basis overlap. So the days are divided into slices: each window and each
-- previous period consists of whole slices. Slice 0 has the newest days.
--
-- `window_ranges`, a relation from sql_engine.py, has a row (`range_id`) for each window and each previous period.
CREATE OR REPLACE TABLE slice_starts AS
SELECT DISTINCT date_basis, first_day FROM window_ranges WHERE time_window <> 'all';

CREATE OR REPLACE TABLE calendar AS
SELECT
    stored_days.date_basis, stored_days.date, CAST(count(DISTINCT slice_starts.first_day) AS UTINYINT) AS slice
FROM stored_days
LEFT JOIN slice_starts
    ON slice_starts.date_basis = stored_days.date_basis AND slice_starts.first_day > stored_days.date
GROUP BY ALL;

-- A window covers the slices 0 to `oldest_slice`. With the lengths in WINDOWS, no other window or previous period begins
-- inside a previous period, so each previous period is exactly one slice; window_inputs.sql relies on that.
CREATE OR REPLACE TABLE ranges AS
SELECT window_ranges.*, CAST(count(DISTINCT slice_starts.first_day) AS UTINYINT) AS oldest_slice
FROM window_ranges
LEFT JOIN slice_starts
    ON slice_starts.date_basis = window_ranges.date_basis AND slice_starts.first_day > window_ranges.first_day
GROUP BY ALL;

-- How many days of a range have a file of an instance. For all instances together (`instance_id` is null), the sums.
CREATE OR REPLACE TABLE day_counts AS
WITH counted AS (
    SELECT
        range_id, instances.instance_id, count(stored_days.date) AS days,
        date_diff('day', first_day, last_day) + 1 AS days_expected
    FROM ranges
    JOIN (SELECT DISTINCT date_basis, instance_id FROM stored_days) AS instances USING (date_basis)
    LEFT JOIN stored_days
        ON stored_days.date_basis = ranges.date_basis AND stored_days.instance_id = instances.instance_id
        AND stored_days.date BETWEEN first_day AND last_day
    GROUP BY ALL
)
SELECT range_id, instance_id, CAST(sum(days) AS BIGINT) AS days, CAST(sum(days_expected) AS BIGINT) AS days_expected
FROM counted
GROUP BY GROUPING SETS ((range_id, instance_id), (range_id));
