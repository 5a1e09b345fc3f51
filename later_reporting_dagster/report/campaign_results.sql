{#- Spend and return of campaigns over date ranges. Each macro expands to a list of common table expressions.

    They read these relations (campaign_inputs.py):
      campaign_performance_daily  view of the table, with all known metrics: one row per campaign and day
      stored_campaign_days        the days (`date`) on which that table has a file, with or without rows
      campaigns                   the table of campaigns
    and the variable `campaign_totals` of sql_engine.py: one dict per metric that is summed, as `metrics` in measures.sql. -#}
{%- import "measures.sql" as measures with context %}

{#- The last one, `campaign_results`, has one row per date range and campaign with performance on a day of the range. Money
    is decimal. A rate is a sum divided by a sum, over the campaign-days that report both of its parts; null if there are
    none, or if the divisor is 0. `campaign_range_days` has the days of each range that have a file, also in ranges without
    any campaign.

    ranges  relation of the date ranges: range_id, first_day, last_day. They may overlap: each row is read once -#}
{%- macro campaign_results(ranges) -%}
campaign_range_days AS (
    SELECT range_id, count(stored_campaign_days.date) AS days
    FROM {{ ranges }} AS date_ranges
    LEFT JOIN stored_campaign_days ON stored_campaign_days.date BETWEEN first_day AND last_day
    GROUP BY range_id
),
campaign_rows AS (
    SELECT
        date, campaign_id,
        {%- for total in campaign_totals %}
        {{ measures.summable(total) }} AS {{ total.column }},
        {%- endfor %}
        money(paid_return_on_ad_spend) AS return_per_spend
    FROM campaign_performance_daily
    WHERE {{ measures.is_within_limits(campaign_totals + [{"column": "paid_return_on_ad_spend", "maximum": maximum_spend}]) }}
),
campaign_sums AS (
    SELECT
        range_id, campaign_id,
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
    FROM campaign_rows JOIN {{ ranges }} AS date_ranges ON date BETWEEN first_day AND last_day
    GROUP BY range_id, campaign_id
),
campaign_results AS (
    SELECT
        range_id, campaign_id, days,
        {%- for total in campaign_totals %}
        {{ total.column }},
        {%- endfor %}
        quotient(value_of_cost, cost_of_value) AS estimated_roi,
        quotient(spend_of_clicks, clicks_of_spend) AS cost_per_click,
        quotient(return_of_spend, spend_of_return) AS paid_return_on_ad_spend
    FROM campaign_sums JOIN campaign_range_days USING (range_id)
)
{%- endmacro -%}

{#- `campaign_instances` has the instance of each campaign id that belongs to only one. The API does not state the instance of
    a campaign's performance, so it is joined by campaign id: the performance of any other id is of unknown instances.

    posts  relation of posts or groups of posts: instance_id, campaign_id (null is ignored) -#}
{%- macro campaign_instances(posts) -%}
campaign_instances AS (
    SELECT campaign_id, min(instance_id) AS instance_id
    FROM (
        SELECT instance_id, campaign_id FROM {{ posts }}
        UNION ALL
        SELECT instance_id, campaign_id FROM campaigns
    ) AS pairs
    WHERE campaign_id IS NOT NULL
    GROUP BY campaign_id
    HAVING min(instance_id) = max(instance_id)
)
{%- endmacro -%}
