{#- The posts of a query in its order, each as JSON. `post_rows` in rows.py has the variables. -#}

{%- macro all_of(conditions) -%}
{%- if conditions %} WHERE {{ conditions | join(" AND ") }}{% endif -%}
{%- endmacro -%}

WITH
-- The days of a post are read twice. A file may be replaced in between, so their rows are kept.
source AS {{ "MATERIALIZED" if sums_days else "NOT MATERIALIZED" }} (FROM {{ table }}{{ all_of(row_conditions) }}),
{%- if sums_days %}
daily AS (
    SELECT
        *
        {%- for channel, prefix in channels %},
        cost_low({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_lower,
        cost_high({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_upper,
        -- Twice the middle of the bounds; null if they contradict each other, or are beyond any real cost. A decimal, so
        -- that its sum does not depend on the order of rows.
        CASE
            WHEN NOT is_contradictory({{ channel }}_lower, {{ channel }}_upper) AND {{ channel }}_upper < 1e28
                THEN CAST({{ channel }}_lower AS DECIMAL(38, 6)) + CAST({{ channel }}_upper AS DECIMAL(38, 6))
        END AS {{ channel }}_twice_cost
        {%- endfor %}
    FROM source
),
sums AS (
    SELECT
        instance_id, campaign_id, post_id, max(date) AS date
        {%- for name in counts %},
        TRY_CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
        {%- endfor %}
        {%- for name in amounts %},
        CASE
            WHEN max(abs({{ name }})) < 1e28 THEN CAST(sum(TRY_CAST({{ name }} AS DECIMAL(38, 6))) AS DOUBLE)
            ELSE round_significant(fsum({{ name }}))
        END AS {{ name }}
        {%- endfor %}
        {%- for channel, prefix in channels %},
        round(rate(
            sum({{ prefix }}engagements) FILTER ({{ prefix }}impressions IS NOT NULL),
            sum({{ prefix }}impressions) FILTER ({{ prefix }}engagements IS NOT NULL)
        ), 2) AS {{ prefix }}engagement_rate
        {%- endfor %},
        -- Each day implies the whole content cost of a post, so it counts once, and is within the bounds of all days. If
        -- these contradict each other, it has changed: the newest day knows it.
        max(organic_lower) FILTER (organic_twice_cost IS NOT NULL) AS content_cost_lower,
        min(organic_upper) FILTER (organic_twice_cost IS NOT NULL) AS content_cost_upper,
        CASE
            WHEN is_contradictory(content_cost_lower, content_cost_upper)
                THEN CAST(arg_max(organic_twice_cost, date) AS DOUBLE) / 2
            ELSE (content_cost_lower + content_cost_upper) / 2
        END AS content_cost
        {%- for cost, measure, number in unit_costs %},
        round(quotient({{ number }} * content_cost, sum({{ measure }})), 2) AS {{ cost }},
        -- Ad spend is money of a day.
        round(quotient(
            {{ number / 2 }} * CAST(sum(paid_twice_cost) FILTER (paid_{{ measure }} IS NOT NULL) AS DOUBLE),
            sum(paid_{{ measure }}) FILTER (paid_twice_cost IS NOT NULL)
        ), 2) AS paid_{{ cost }}
        {%- endfor %}
    FROM daily
    GROUP BY instance_id, campaign_id, post_id
),
posts AS (
    -- All but metrics is that of the newest day.
    SELECT newest.* REPLACE (
        {%- for name in counts + amounts + rates %}sums.{{ name }} AS {{ name }}{{ ", " if not loop.last }}{% endfor -%}
        {%- for name, type in unknown %}, CAST(NULL AS {{ type }}) AS {{ name }}{% endfor -%}
    )
    FROM source AS newest
    JOIN sums USING (instance_id, campaign_id, post_id, date)
),
{%- else %}
posts AS (FROM source),
{%- endif %}
rendered AS (
    SELECT
        *,
        CAST(to_json({ {%- for name, expression in fields %}'{{ name }}': {{ expression }}{{ ", " if not loop.last }}{% endfor -%} }) AS VARCHAR) AS json,
        {% for name in merged %}contains(extra, '"{{ name }}"'){{ " OR " if not loop.last }}{% endfor %} AS is_merged
    FROM posts{{ all_of(post_conditions) }}
)
-- Fields that the contract does not define come back as they came: `extra` is a JSON object of them. It is appended as
-- text, because DuckDB does not read all JSON that may be in it. `extend` adds members to objects, and repeats no field.
SELECT
    CASE
        WHEN extra IS NULL THEN json
        WHEN is_merged THEN extend(json, extra)
        ELSE json[:-2] || ',' || extra[2:]
    END AS "row"
FROM rendered
ORDER BY {{ sort_column }} {{ sort_direction }} NULLS LAST, post_id, campaign_id, instance_id
