-- The sums of a stored table beside those of its facts, by period and instance, where they are not the same.
{%- set is_window = cadence == "all" %}
WITH facts AS (
    SELECT
        {{ "time_window" if is_window else "first_day" }} AS period, coalesce(instance_id, '') AS instance_id,
        {%- for metric in metrics %}
        sum({{ metric.name }}) AS {{ metric.name }},
        {%- endfor %}
    FROM {{ "campaign_day_totals" if "campaign_id" in grain else "day_totals" }} JOIN periods ON date BETWEEN first_day AND last_day
    {%- if is_window %}
    WHERE NOT is_previous
    {%- endif %}
    GROUP BY GROUPING SETS ((period, instance_id){{ ", (period)" if is_window and has_all }})
),
stored AS (
    SELECT
        {{ "time_window" if is_window else "date" }} AS period, instance_id,
        {%- for metric in metrics %}
        sum(CAST({{ metric.name }} AS {{ metric.sum_type }})) AS {{ metric.name }},
        {%- endfor %}
    FROM {{ table }}
    GROUP BY ALL
)
SELECT
    CAST(coalesce(facts.period, CAST(stored.period AS {{ "window_name" if is_window else "DATE" }})) AS {{ "VARCHAR" if is_window else "DATE" }}) AS period,
    coalesce(facts.instance_id, stored.instance_id) AS instance_id,
    {%- for metric in metrics %}
    facts.{{ metric.name }} AS {{ metric.name }}_of_facts, stored.{{ metric.name }} AS {{ metric.name }}_stored,
    {%- endfor %}
FROM facts FULL JOIN stored ON stored.period = facts.period AND stored.instance_id = facts.instance_id
WHERE {% for metric in metrics %}facts.{{ metric.name }} IS DISTINCT FROM stored.{{ metric.name }}{{ " OR " if not loop.last }}{% endfor %}
ORDER BY ALL
