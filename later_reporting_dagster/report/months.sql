-- Months with results, of all instances (instance_id is null) and of each, newest first. What creators cost is Later's total of the
-- month, and null in a month that the lake does not have from its first day on.
{%- set sums = ("organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements", "organic_rate_engagements",
    "organic_rate_impressions", "paid_rate_engagements", "paid_rate_impressions") %}
WITH of_instances AS (
    SELECT
        date AS month, instance_id, max(days) AS days, max(days_expected) AS days_in_month,
        {%- for name in sums %}
        CAST(sum({{ name }}) AS BIGINT) AS {{ name }},
        {%- endfor %}
        sum(CAST(ad_spend AS DECIMAL(28, 6))) AS ad_spend
    FROM organic_paid_monthly
    GROUP BY ALL
),
scoped AS (
    FROM of_instances
    UNION ALL BY NAME
    SELECT
        month, NULL AS instance_id, min(days) AS days, max(days_in_month) AS days_in_month,
        {%- for name in sums %}
        CAST(sum({{ name }}) AS BIGINT) AS {{ name }},
        {%- endfor %}
        sum(ad_spend) AS ad_spend
    FROM of_instances
    GROUP BY ALL
),
returns AS (
    SELECT first_day AS month, nullif(instance_id, '') AS instance_id, paid_return_on_ad_spend AS return_on_ad_spend
    FROM account_totals, newest
    WHERE period = 'recorded_month' AND account_totals.last_day = least(last_day(first_day), newest_day)
),
costs AS (FROM monthly_cost WHERE campaign_id IS NULL),
rated AS (
    SELECT
        scoped.*, days = days_in_month AS is_whole, days = least(last_day(scoped.month), newest_day) - scoped.month + 1 AS is_complete,
        CASE WHEN is_complete THEN content_cost_total END AS content_cost_total,
        CASE WHEN is_complete THEN content_cost_total_posts END AS content_cost_total_posts,
        CASE WHEN is_complete THEN return_on_ad_spend END AS return_on_ad_spend,
        plus(organic_impressions, paid_impressions) AS impressions,
        lag(CASE WHEN days = days_in_month THEN plus(organic_impressions, paid_impressions) END) OVER before AS impressions_before,
        lag(scoped.month) OVER before AS month_before, lag(days_in_month) OVER before AS days_before
    FROM scoped
    CROSS JOIN newest
    LEFT JOIN costs ON costs.month = scoped.month AND costs.instance_id IS NOT DISTINCT FROM scoped.instance_id
    LEFT JOIN returns ON returns.month = scoped.month AND returns.instance_id IS NOT DISTINCT FROM scoped.instance_id
    WINDOW before AS (PARTITION BY scoped.instance_id ORDER BY scoped.month)
)
SELECT
    row_number() OVER (PARTITION BY instance_id ORDER BY rated.month DESC) AS place,
    instance_id, strftime(month, '%Y-%m-%d') AS month, days, days_in_month, is_whole,
    impressions, organic_impressions, paid_impressions,
    CASE WHEN is_whole AND month_before = month - INTERVAL 1 MONTH THEN impressions_before END AS previous_impressions,
    CASE WHEN previous_impressions IS NOT NULL THEN days_before END AS previous_days_in_month,
    plus(organic_engagements, paid_engagements) AS engagements,
    rate(organic_rate_engagements, organic_rate_impressions) AS organic_engagement_rate,
    rate(paid_rate_engagements, paid_rate_impressions) AS paid_engagement_rate,
    ad_spend, content_cost_total, content_cost_total_posts,
    CASE WHEN content_cost_total IS NOT NULL THEN plus(content_cost_total, ad_spend) END AS cost,
    return_on_ad_spend
FROM rated
QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY rated.month DESC) <= {{ most_months }}
