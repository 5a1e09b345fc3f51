-- A view of a raw table with the columns that rollups sum. A rate is a quotient of two sums: a row adds to these sums only
-- if it reports both engagements and impressions (or views).
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
        CASE WHEN NOT {{ channel }}_is_contradictory THEN money(least({{ channel }}_lower_bound, {{ channel }}_upper_bound), '{{ channel }}_spend_minimum') END AS {{ channel }}_minimum,
        CASE WHEN NOT {{ channel }}_is_contradictory THEN money({{ channel }}_upper_bound, '{{ channel }}_spend_maximum') END AS {{ channel }}_maximum
        {%- endfor %}
        {%- endif %}
    FROM {{ raw_table }}
)
SELECT
    date, instance_id, campaign_id, post_id, creator_id, platform, content_type
    {%- for metric in metrics %},
    {{ "money(%s, '%s')" % (metric.column, metric.sum) if metric.is_decimal else metric.column }} AS {{ metric.sum }}
    {%- endfor %}
    {%- for channel, prefix in channels %}{% for measure in rate_units[channel] %},
    CASE WHEN {{ prefix }}{{ measure }} IS NOT NULL THEN {{ prefix }}engagements END AS {{ channel }}_{{ measure }}_rate_engagements,
    CASE WHEN {{ prefix }}engagements IS NOT NULL THEN {{ prefix }}{{ measure }} END AS {{ channel }}_{{ measure }}_rate_units
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
    CASE WHEN organic_minimum IS NOT NULL THEN money(estimated_value_generated, 'organic_estimated_value') END AS value_of_spend,
    CASE WHEN estimated_value_generated IS NOT NULL THEN organic_minimum END AS valued_spend_minimum,
    CASE WHEN estimated_value_generated IS NOT NULL THEN organic_maximum END AS valued_spend_maximum
    {%- endif %}
FROM bounded;
