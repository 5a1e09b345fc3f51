-- Days; from an age of 91 days on, weeks, which are seven days from a multiple of seven on.
{%- set counts = ("organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements", "organic_rate_engagements",
    "organic_rate_impressions", "paid_rate_engagements", "paid_rate_impressions") %}
WITH scoped AS (
    SELECT *, NULL AS campaign_id FROM organic_paid_daily
    UNION ALL BY NAME SELECT * REPLACE (NULL AS instance_id), NULL AS campaign_id FROM organic_paid_daily
    UNION ALL BY NAME FROM organic_paid_daily_by_campaign SEMI JOIN report_results USING (instance_id, campaign_id)
)
SELECT
    instance_id, campaign_id,
    CASE WHEN newest_day - date < 91 THEN newest_day - date ELSE (newest_day - date) // 7 * 7 END AS age,
    max(newest_day - date) AS oldest_age
    {%- for name in counts %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
    {%- endfor %},
    CAST(sum(CAST(ad_spend AS DECIMAL(28, 6))) AS DOUBLE) AS ad_spend
FROM scoped, newest
GROUP BY ALL
