-- The sums of each day and instance.
{%- if fact == "campaign_day_totals" %}
-- Here, a post counts in each of its campaigns.
{%- endif %}
CREATE OR REPLACE TABLE {{ fact }} AS
SELECT
    date, instance_id,
    {%- for metric in metrics %}
    sum({{ metric.name }}) AS {{ metric.name }},
    {%- endfor %}
FROM {{ "campaign_post_days" if fact == "campaign_day_totals" else "post_days" }}
GROUP BY ALL
