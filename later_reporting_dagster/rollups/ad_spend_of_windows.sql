-- Ad spend of campaigns over the newest windows of 7 and 28 days, as the API totals it, and as its days add up. Only windows
-- of which all days are stored. Each value is rounded to a cent, so the sums may differ by half a cent for each.
--
--   quarantined   relation: table_name, campaign_id (null if it cannot be read), first_day and last_day of each bad row
--
WITH windows AS (
    SELECT period, max(first_day) AS first_day, max(last_day) AS last_day
    FROM campaign_performance_periods
    WHERE period IN ('7d', '28d')
    GROUP BY period
),
complete_windows AS (
    SELECT period, first_day, last_day
    FROM windows
    JOIN stored_files ON table_name = 'campaign_performance_daily' AND date BETWEEN first_day AND last_day
    GROUP BY ALL
    HAVING count(*) = last_day - first_day + 1
),
of_windows AS (
    SELECT period, first_day, last_day, campaign_id, coalesce(CAST(paid_ad_spend AS DECIMAL(18, 6)), 0) AS of_window
    FROM campaign_performance_periods JOIN complete_windows USING (period, first_day, last_day)
),
of_days AS (
    SELECT
        period, first_day, last_day, campaign_id,
        coalesce(sum(CAST(paid_ad_spend AS DECIMAL(18, 6))), 0) AS of_days, count(paid_ad_spend) AS days_with_spend
    FROM campaign_performance_daily JOIN complete_windows ON date BETWEEN first_day AND last_day
    GROUP BY ALL
),
-- Campaigns of instances that are no longer fetched have an older window.
with_older_window AS (
    SELECT period, campaign_id FROM campaign_performance_periods
    EXCEPT
    SELECT period, campaign_id FROM of_windows
),
-- A row in quarantine, of the window or of a day in it, is in no sum.
with_bad_rows AS (
    SELECT DISTINCT period, campaign_id
    FROM complete_windows AS windows
    JOIN quarantined ON CASE table_name
        WHEN 'campaign_performance_periods'
            THEN quarantined.first_day = windows.first_day AND quarantined.last_day = windows.last_day
        ELSE quarantined.first_day <= windows.last_day AND windows.first_day <= quarantined.last_day
    END
),
compared AS (
    SELECT
        period, campaign_id, first_day, last_day, coalesce(of_window, 0) AS of_window, coalesce(of_days, 0) AS of_days,
        abs(coalesce(of_window, 0) - coalesce(of_days, 0)) > 0.005 * (coalesce(days_with_spend, 0) + 1) AS differs
    FROM of_windows
    FULL JOIN of_days USING (period, first_day, last_day, campaign_id)
)
FROM compared
ANTI JOIN with_older_window USING (period, campaign_id)
ANTI JOIN with_bad_rows
    ON with_bad_rows.period = compared.period
    AND coalesce(with_bad_rows.campaign_id = compared.campaign_id, true)
ORDER BY ALL
