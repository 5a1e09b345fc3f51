-- A view of a raw table with the columns that rollups sum. A rate is a quotient of two sums: a row adds to these sums only
-- if it reports engagements, and impressions (or views) other than 0. Negative counts correct those of an earlier day.
{%- import "measures.sql" as measures with context %}
{%- set with_spend = raw_table == "posts_published" %}
CREATE OR REPLACE VIEW {{ raw_table }}_rows AS
WITH bounded AS (
    SELECT
        *
        {%- if with_spend %}
        {%- for channel, prefix in channels %},
        spend_minimum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_lower,
        spend_maximum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_upper,
        coalesce(is_contradictory({{ channel }}_lower, {{ channel }}_upper), false) AS {{ channel }}_is_contradictory,
        NOT {{ channel }}_is_contradictory AND {{ channel }}_upper <= {{ maximum_spend }} AS {{ channel }}_has_spend,
        -- The middle of the bounds, and half of their distance. The seventh digit holds half of a millionth.
        CASE WHEN {{ channel }}_has_spend THEN CAST(({{ channel }}_upper + {{ channel }}_lower) / 2 AS DECIMAL(18, 7)) END AS {{ channel }}_spend,
        CASE WHEN {{ channel }}_has_spend THEN CAST(abs({{ channel }}_upper - {{ channel }}_lower) / 2 AS DECIMAL(18, 7)) END AS {{ channel }}_spread
        {%- endfor %}
        {%- endif %}
    FROM {{ raw_table }}
    WHERE {{ measures.is_within_limits(metrics) }}
)
SELECT
    date, instance_id, campaign_id, post_id, creator_id, platform, content_type
    {%- for metric in metrics %},
    {{ measures.summable(metric) }} AS {{ metric.sum }}
    {%- endfor %}
    {%- for channel, prefix in channels %}{% for measure in rate_units[channel] %},
    CASE WHEN {{ prefix }}{{ measure }} <> 0 THEN {{ prefix }}engagements END AS {{ channel }}_{{ measure }}_rate_engagements,
    CASE WHEN {{ prefix }}{{ measure }} <> 0 AND {{ prefix }}engagements IS NOT NULL THEN {{ prefix }}{{ measure }} END AS {{ channel }}_{{ measure }}_rate_units
    {%- endfor %}{% endfor %}
    {%- if with_spend %},
    -- For costs. Counts of posts are sums of 0 and 1.
    1 AS posts
    {%- for channel, prefix in channels %},
    CAST({{ prefix }}impressions IS NOT NULL OR {{ prefix }}engagements IS NOT NULL AS BIGINT) AS {{ channel }}_posts,
    {{ channel }}_spend, {{ channel }}_spread,
    CAST({{ channel }}_spend IS NOT NULL AS BIGINT) AS {{ channel }}_spend_posts,
    CAST({{ channel }}_is_contradictory AS BIGINT) AS {{ channel }}_contradictory_posts
    {%- for cost, measure, _ in unit_costs %},
    CASE WHEN {{ prefix }}{{ measure }} IS NOT NULL THEN {{ channel }}_spend END AS {{ channel }}_{{ cost }}_spend,
    CASE WHEN {{ channel }}_spend IS NOT NULL THEN {{ prefix }}{{ measure }} END AS {{ channel }}_{{ cost }}_{{ measure }}
    {%- endfor %}
    {%- endfor %},
    CASE WHEN organic_spend IS NOT NULL THEN money(estimated_value_generated) END AS organic_value,
    CASE WHEN estimated_value_generated IS NOT NULL THEN organic_spend END AS organic_value_spend
    {%- endif %}
FROM bounded;
