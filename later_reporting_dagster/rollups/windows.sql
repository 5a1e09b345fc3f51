{#- The rows of window tables. Each macro expands to a list of common table expressions; the last one, `windows`, is the
    result. They need the relations of window_inputs.sql. -#}
{%- import "measures.sql" as measures with context -%}
{%- set by = ("time_window", "is_previous") + grain -%}

{#- Join condition: the days of the window and instance of a row. -#}
{%- macro days_of(relation) -%}
window_days.table_name = '{{ raw_table }}' AND {{ measures.same("window_days", relation, ("time_window", "instance_id")) }}
{%- endmacro -%}

{#- Comparison of the channels over all windows, each with the previous period.

    counted_per  `campaign`: a post counts in each of its campaigns; `post`: it counts once
    groups       a relation like post_groups -#}
{%- macro comparison(counted_per, groups="post_groups") -%}
totals AS (
    SELECT {{ by | join(", ") }}, {{ measures.group_totals_of_groups() }}
    FROM {{ groups }}
    WHERE counted_per IN ('either', '{{ counted_per }}')
    GROUP BY ALL
),
compared AS (SELECT *, {{ measures.rates() }} FROM totals),
{%- set keys %}first_day, last_day, days, days_expected, previous_days, compared.time_window
    {%- for name in grain %}, compared.{{ name }}{% endfor %}{% endset %}
windows AS (
    SELECT
        {{ keys }}
        {%- for prefix, names, condition, days in (
            ("", measured, "NOT is_previous", "days"), ("previous_", previous, "is_previous", "previous_days")
        ) %}{% for name in names %},
        {%- set value = "any_value(%s) FILTER (%s)" % (name, condition) %}
        {% if name in post_counts %}CASE WHEN {{ days }} > 0 THEN coalesce({{ value }}, 0) END{% else %}{{ value }}{% endif %} AS {{ prefix }}{{ name }}
        {%- endfor %}{% endfor %}
    FROM compared JOIN window_days ON {{ days_of("compared") }}
    GROUP BY {{ keys }}
)
{%- endmacro -%}

{#- Costs over all windows. `sums` is a relation of sums of `cost_columns` by time_window and the grain. -#}
{%- macro costs(sums) -%}
windows AS (
    SELECT sums.*, first_day, last_day, days, days_expected, {{ measures.costs() }}
    FROM {{ sums }} AS sums JOIN window_days ON {{ days_of("sums") }}
)
{%- endmacro -%}
