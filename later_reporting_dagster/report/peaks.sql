-- The day of each window with the most impressions, of all instances (instance_id is null) and of each, if one campaign has more than
-- {{ notable_percent }} % of them.
WITH days AS (
    SELECT date, instance_id, sum(plus(organic_impressions, paid_impressions)) AS impressions
    FROM organic_paid_daily
    GROUP BY GROUPING SETS ((date, instance_id), (date))
),
highest AS (
    SELECT time_window, date, instance_id, CAST(impressions AS BIGINT) AS impressions
    FROM days JOIN windows ON date BETWEEN first_day AND last_day
    WHERE NOT is_previous AND first_day < last_day AND impressions > 0
    QUALIFY row_number() OVER (PARTITION BY time_window, instance_id ORDER BY impressions DESC, date) = 1
),
campaigns AS (
    SELECT
        date, instance_id AS of_instance, campaign_id,
        CAST(sum(plus(organic_impressions, paid_impressions)) AS BIGINT) AS campaign_impressions
    FROM organic_paid_daily_by_campaign SEMI JOIN report_results USING (instance_id, campaign_id)
    GROUP BY ALL
)
SELECT
    time_window, highest.instance_id, of_instance, campaign_id, newest_day - highest.date AS age, impressions, campaign_impressions,
    100.0 * campaign_impressions / impressions AS share
FROM highest
CROSS JOIN newest
JOIN campaigns ON campaigns.date = highest.date AND coalesce(highest.instance_id, of_instance) = of_instance
WHERE share > {{ notable_percent }}
QUALIFY row_number() OVER (PARTITION BY time_window, highest.instance_id ORDER BY campaign_impressions DESC, of_instance, campaign_id) = 1
