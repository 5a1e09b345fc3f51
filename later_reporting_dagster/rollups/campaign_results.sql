-- What the API totals for each campaign over the windows of organic_paid_by_campaign: one row per window and campaign with
-- performance on a day of it. Money is decimal. A rate is a sum divided by a sum, over the days that report both parts.
{%- import "measures.sql" as measures with context %}
WITH windows AS (
    SELECT time_window, first_day, last_day, length AS days_expected, count(date) AS days
    FROM ranges
    LEFT JOIN stored_files
        ON stored_files.table_name = 'campaign_performance_daily' AND date BETWEEN first_day AND last_day
    WHERE ranges.table_name = 'post_metrics_daily' AND NOT is_previous
    GROUP BY ALL
),
daily AS (
    SELECT
        date, campaign_id,
        {%- for total in campaign_totals %}
        {{ measures.summable(total) }} AS {{ total.column }},
        {%- endfor %}
        money(paid_return_on_ad_spend) AS return_per_spend
    FROM campaign_performance
    WHERE {{ measures.is_within_limits(campaign_totals + [{"column": "paid_return_on_ad_spend", "maximum": maximum_spend}]) }}
),
sums AS (
    SELECT
        time_window, campaign_id,
        {%- for total in campaign_totals %}
        {% if total.decimal %}sum({{ total.column }}){% else %}CAST(sum({{ total.column }}) AS BIGINT){% endif %} AS {{ total.column }},
        {%- endfor %}
        sum(estimated_value_generated) FILTER (estimated_content_cost IS NOT NULL) AS value_of_cost,
        sum(estimated_content_cost) FILTER (estimated_value_generated IS NOT NULL) AS cost_of_value,
        sum(paid_ad_spend) FILTER (paid_clicks IS NOT NULL) AS spend_of_clicks,
        sum(paid_clicks) FILTER (paid_ad_spend IS NOT NULL) AS clicks_of_spend,
        -- Without the cast, DuckDB keeps 18 digits of the product, and larger products fail.
        sum(CAST(return_per_spend AS DECIMAL(38, 6)) * paid_ad_spend) AS return_of_spend,
        sum(paid_ad_spend) FILTER (return_per_spend IS NOT NULL) AS spend_of_return
    FROM daily JOIN windows ON date BETWEEN first_day AND last_day
    GROUP BY time_window, campaign_id
),
-- The instance of each campaign id that belongs to only one: the API does not state it.
instances AS (
    SELECT campaign_id, min(instance_id) AS instance_id
    FROM (SELECT instance_id, campaign_id FROM post_groups WHERE counted_per <> 'post' UNION SELECT instance_id, campaign_id FROM campaigns)
    GROUP BY campaign_id
    HAVING min(instance_id) = max(instance_id)
)
SELECT
    sums.*, first_day, last_day, days, days_expected, instances.instance_id, campaign_name, status AS campaign_status,
    quotient(value_of_cost, cost_of_value) AS value_per_content_cost,
    quotient(spend_of_clicks, clicks_of_spend) AS cost_per_click,
    quotient(return_of_spend, spend_of_return) AS paid_return_on_ad_spend
FROM sums
JOIN windows USING (time_window)
LEFT JOIN instances USING (campaign_id)
LEFT JOIN campaigns ON campaigns.instance_id = instances.instance_id AND campaigns.campaign_id = sums.campaign_id
