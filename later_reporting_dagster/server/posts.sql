{#- The posts of a query: each as JSON, with a number that orders equal posts and the values that posts can be sorted by.

      table             posts_published or post_metrics_daily, a view of the files of the query's days and instances
      sums_days         whether a post may have several rows, of which the sums are served
      row_conditions    conditions on a row, all of which have to be true
      post_conditions   conditions on a post, such as its platform
      fields            (name in the response, SQL expression), in the order of the response
      objects           name -> (SQL expression, condition) of the fields to whose value `extra` may add members; null
                        unless the condition is true
      sort_values       (name, SQL expression without nulls)
      channels          (channel, prefix of its columns)
      counts, amounts   metrics that add up: integers, decimals
      rates             metrics that are quotients of sums
      unknown           (name, SQL type) of the metrics that are not known for several days
-#}

{%- macro object(pairs) -%}
{ {%- for name, expression in pairs %}'{{ name }}': {{ expression }}{{ ", " if not loop.last }}{% endfor -%} }
{%- endmacro -%}

{#- The text of a JSON object with the members of another one. -#}
{%- macro extended(json, others) -%}
CASE WHEN {{ others }} = '{}' THEN {{ json }} ELSE {{ json }}[:-2] || ',' || {{ others }}[2:] END
{%- endmacro -%}

{#- A JSON object with the members that `extra` has for it. -#}
{%- macro completed(name, structure) -%}
CASE
    WHEN coalesce(json_type(extra, '$.{{ name }}'), '') <> 'OBJECT' THEN to_json("{{ name }}")
    ELSE CAST({{ extended("CAST(to_json(%s) AS VARCHAR)" % structure, "CAST(json_extract(extra, '$.%s') AS VARCHAR)" % name) }} AS JSON)
END
{%- endmacro -%}

{%- macro all_of(conditions) -%}
{%- if conditions %} WHERE {{ conditions | join(" AND ") }}{% endif -%}
{%- endmacro -%}

{%- set extended_fields = [] -%}
{%- for name, expression in fields -%}
{%- set _ = extended_fields.append((name, completed(name, objects[name][0]) if name in objects else expression)) -%}
{%- endfor -%}
WITH
{%- if sums_days %}
daily AS (
    SELECT
        *
        {%- for channel, prefix in channels %},
        spend_minimum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_lower,
        spend_maximum({{ prefix }}cpe, {{ prefix }}engagements, {{ prefix }}cpm, {{ prefix }}impressions) AS {{ channel }}_upper,
        -- Twice the middle of the bounds; null if they contradict each other. The tolerance is for rounding errors of
        -- floats. A decimal, so that its sum does not depend on the order of rows.
        CASE
            WHEN {{ channel }}_lower <= {{ channel }}_upper * (1 + 1e-12)
                THEN CAST({{ channel }}_lower AS DECIMAL(38, 6)) + CAST({{ channel }}_upper AS DECIMAL(38, 6))
        END AS {{ channel }}_twice_cost
        {%- endfor %}
    FROM {{ table }}{{ all_of(row_conditions) }}
),
sums AS (
    SELECT
        instance_id, campaign_id, post_id, max(date) AS date
        {%- for name in counts %},
        to_int64(sum({{ name }}), '{{ name }}') AS {{ name }}
        {%- endfor %}
        {%- for name in amounts %},
        CAST(sum(CAST({{ name }} AS DECIMAL(38, 6))) AS DOUBLE) AS {{ name }}
        {%- endfor %}
        {%- for channel, prefix in channels %},
        round(rate(
            sum({{ prefix }}engagements) FILTER ({{ prefix }}impressions IS NOT NULL),
            sum({{ prefix }}impressions) FILTER ({{ prefix }}engagements IS NOT NULL)
        ), 2) AS {{ prefix }}engagement_rate
        {%- for cost, measure, factor in (("cpe", "engagements", 0.5), ("cpm", "impressions", 500.0)) %},
        round(quotient(
            {{ factor }} * CAST(sum({{ channel }}_twice_cost) FILTER ({{ prefix }}{{ measure }} IS NOT NULL) AS DOUBLE),
            sum({{ prefix }}{{ measure }}) FILTER ({{ channel }}_twice_cost IS NOT NULL)
        ), 2) AS {{ prefix }}{{ cost }}
        {%- endfor %}
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
    FROM {{ table }} AS newest
    JOIN sums USING (instance_id, campaign_id, post_id, date)
),
{%- else %}
posts AS (FROM {{ table }}{{ all_of(row_conditions) }}),
{%- endif %}
nested AS (
    SELECT *{% for name, (structure, condition) in objects.items() %}, CASE WHEN {{ condition }} THEN {{ structure }} END AS "{{ name }}"{% endfor %}
    FROM posts{{ all_of(post_conditions) }}
),
-- Fields that the contract does not define come back as they came: `extra` is a JSON object of them. If it has members
-- of a nested object, this object is composed separately.
rendered AS (
    SELECT
        *,
        CAST(to_json({{ object(fields) }}) AS VARCHAR) AS json,
        CASE
            WHEN extra IS NULL THEN json
            WHEN NOT ({% for name in objects %}json_exists(extra, '$.{{ name }}'){{ " OR " if not loop.last }}{% endfor %})
                THEN {{ extended("json", "extra") }}
        END AS simple_row,
        CASE
            WHEN simple_row IS NULL THEN CAST(to_json({{ object(extended_fields) }}) AS VARCHAR)
        END AS row_with_objects,
        CASE
            WHEN simple_row IS NULL
                THEN CAST(json_merge_patch(extra, '{ {%- for name in objects %}"{{ name }}":null{{ "," if not loop.last }}{% endfor -%} }') AS VARCHAR)
        END AS other_members
    FROM nested
)
SELECT
    coalesce(simple_row, {{ extended("row_with_objects", "other_members") }}) AS "row",
    hash(instance_id, campaign_id, post_id) AS tie
    {%- for name, expression in sort_values %},
    {{ expression }} AS "{{ name }}"
    {%- endfor %}
FROM rendered
