-- A view of a raw table with the columns that rollups sum. A rate is a quotient of two sums: a row adds to these sums only
-- if it reports engagements, and impressions (or views) above 0.
{%- import "measures.sql" as measures with context %}
CREATE OR REPLACE VIEW {{ raw_table }}_rows AS
WITH bounded AS (
    SELECT
        *
        {%- if with_spend %}
        {%- for channel, prefix in channels %},
        spend_minimum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_lower_bound,
        spend_maximum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_upper_bound,
        -- The tolerance is for rounding errors of floats.
        coalesce({{ channel }}_lower_bound > {{ channel }}_upper_bound * (1 + 1e-12), false) AS {{ channel }}_is_contradictory,
        NOT {{ channel }}_is_contradictory AND {{ channel }}_upper_bound <= {{ maximum_spend }} AS {{ channel }}_has_spend,
        CASE WHEN {{ channel }}_has_spend THEN money(least({{ channel }}_lower_bound, {{ channel }}_upper_bound)) END AS {{ channel }}_minimum,
        CASE WHEN {{ channel }}_has_spend THEN money({{ channel }}_upper_bound) END AS {{ channel }}_maximum
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
    CASE WHEN {{ prefix }}{{ measure }} > 0 THEN {{ prefix }}engagements END AS {{ channel }}_{{ measure }}_rate_engagements,
    CASE WHEN {{ prefix }}{{ measure }} > 0 AND {{ prefix }}engagements IS NOT NULL THEN {{ prefix }}{{ measure }} END AS {{ channel }}_{{ measure }}_rate_units
    {%- endfor %}{% endfor %}
    {%- if with_spend %}
    {%- for channel, prefix in channels %},
    {{ channel }}_minimum AS {{ channel }}_spend_minimum,
    {{ channel }}_maximum AS {{ channel }}_spend_maximum,
    CAST({{ channel }}_is_contradictory AS BIGINT) AS {{ channel }}_spend_contradictory_posts
    {%- for cost, measure in unit_costs %},
    CASE WHEN {{ prefix }}{{ measure }} IS NOT NULL THEN {{ channel }}_minimum END AS {{ channel }}_{{ cost }}_spend_minimum,
    CASE WHEN {{ prefix }}{{ measure }} IS NOT NULL THEN {{ channel }}_maximum END AS {{ channel }}_{{ cost }}_spend_maximum,
    CASE WHEN {{ channel }}_minimum IS NOT NULL THEN {{ prefix }}{{ measure }} END AS {{ channel }}_{{ cost }}_units
    {%- endfor %}
    {%- endfor %},
    CASE WHEN organic_minimum IS NOT NULL THEN money(estimated_value_generated) END AS value_of_spend,
    CASE WHEN estimated_value_generated IS NOT NULL THEN organic_minimum END AS valued_spend_minimum,
    CASE WHEN estimated_value_generated IS NOT NULL THEN organic_maximum END AS valued_spend_maximum
    {%- endif %}
FROM bounded;
