{#- Jinja macros for the expressions that several tables share: sums, post counts, rates, costs.

    sql_engine.py gives every template these variables:
      channels         (channel, prefix of its raw columns): ("organic", ""), ("paid", "paid_")
      metrics          the metrics that add up: raw column, name of the sum, type of a summed decimal (else empty), maximum
      rate_units       channel -> divisors of its engagement rates: impressions, and views if requested
      unit_costs       (unit cost, its measure): ("cpe", "engagements"), ("cpm", "impressions")
      cost_per         unit cost -> number of units: 1 engagement, 1000 impressions
      sum_columns      columns that are summed: one per metric, and dividend and divisor of each rate
      lift_columns     the sum columns from which the paid lift is computed
      spend_columns    further columns that are summed, for costs; only rows by post date have them
      integer_columns  the summed columns that are integers
      counted_columns  the summed columns that also have a column with the number of posts that report them
      grain, labels    of the table: see RollupTable
      measure_columns  one dict per measure of the table: name, is_post_count, is_cost, has_previous (whether the table has
                       its value in the previous period), has_change, is_difference (whether the change is a difference)
-#}

{#- The value of a metric in a raw row, with a type whose sums are exact. -#}
{%- macro summable(metric) -%}
{% if metric.decimal %}CAST({{ metric.column }} AS {{ metric.decimal }}){% else %}{{ metric.column }}{% endif %}
{%- endmacro -%}

{#- Whether all values of a raw row are within the limits. The parser rejects other rows, but one may be stored already. -#}
{%- macro is_within_limits(metrics) -%}
{%- for metric in metrics %}coalesce(abs({{ metric.column }}) <= {{ metric.maximum }}, true){{ " AND " if not loop.last }}{% endfor -%}
{%- endmacro -%}

{#- Sums of columns, over rows or over groups. -#}
{%- macro sums(columns) -%}
{%- for name in columns %}
    {% if name in integer_columns %}CAST(sum({{ name }}) AS BIGINT){% else %}sum({{ name }}){% endif %} AS {{ name }}{{ "," if not loop.last }}
{%- endfor %}
{%- endmacro -%}

{#- The number of posts that report each column: counted if a row is a post, summed if a row is a group of posts. -#}
{%- macro post_counts(columns, rows_are_posts) -%}
{%- for name in columns if name in counted_columns %}
    {% if rows_are_posts %}count({{ name }}){% else %}CAST(sum({{ name }}_posts) AS BIGINT){% endif %} AS {{ name }}_posts{{ "," if not loop.last }}
{%- endfor %}
{%- endmacro -%}

{#- Rates, shares and the paid lift, from sums. -#}
{%- macro rates() -%}
{%- for channel, prefix in channels %}
    rate({{ channel }}_impressions_rate_engagements, {{ channel }}_impressions_rate_units) AS {{ channel }}_engagement_rate,
{%- endfor %}
    share(paid_impressions, organic_impressions) AS paid_share_of_impressions,
    share(paid_engagements, organic_engagements) AS paid_share_of_engagements,
    {{ lift("impressions") }} AS paid_lift
{%- for channel, prefix in channels if "views" in rate_units[channel] %},
    rate({{ channel }}_views_rate_engagements, {{ channel }}_views_rate_units) AS {{ channel }}_engagement_rate_by_views
{%- endfor %}
{%- if "views" in rate_units.organic and "views" in rate_units.paid %},
    {{ lift("views") }} AS paid_lift_by_views
{%- endif %}
{%- endmacro -%}

{%- macro lift(measure) -%}
lift(paid_{{ measure }}_rate_engagements, paid_{{ measure }}_rate_units, organic_{{ measure }}_rate_engagements, organic_{{ measure }}_rate_units)
{%- endmacro -%}

{#- Costs per unit and value per spend, from sums of the spend's bounds. -#}
{%- macro costs() -%}
{%- for channel, prefix in channels %}
    {{ channel }}_spend_minimum_posts AS {{ channel }}_spend_posts,
{%- for cost, measure in unit_costs %}{% for side in ("minimum", "maximum") %}
    quotient({{ cost_per[cost] }} * {{ channel }}_{{ cost }}_spend_{{ side }}, {{ channel }}_{{ cost }}_units) AS {{ channel }}_{{ cost }}_{{ side }},
{%- endfor %}{% endfor %}
{%- endfor %}
{%- for cost, measure in unit_costs %}{% for side in ("minimum", "maximum") %}
    quotient(
        {{ cost_per[cost] }} * (organic_{{ cost }}_spend_{{ side }} + paid_{{ cost }}_spend_{{ side }}), CAST(organic_{{ cost }}_units AS HUGEINT) + paid_{{ cost }}_units
    ) AS blended_{{ cost }}_{{ side }},
{%- endfor %}{% endfor %}
    quotient(value_of_spend, valued_spend_maximum) AS organic_value_per_spend_minimum,
    quotient(value_of_spend, valued_spend_minimum) AS organic_value_per_spend_maximum
{%- endmacro -%}

{#- Join condition: both relations have the same values of `by`, where null equals null. -#}
{%- macro same(left, right, by) -%}
{%- for name in by %}{{ left }}.{{ name }} IS NOT DISTINCT FROM {{ right }}.{{ name }}{{ " AND " if not loop.last }}{% endfor -%}
{%- endmacro -%}

{#- The same-post lift is the Mantel-Haenszel rate ratio over posts that report both channels: a post adds the engagements
    of each channel, multiplied by the other channel's share of the post's impressions. The terms are integers in units of
    1e-18, so that sums do not depend on the order of rows; the units cancel out. (Decimals would also work, but DuckDB casts
    integers to floats ten times as fast.) -#}
{%- set has_rate_units_of_both_channels = "organic_impressions_rate_units > 0 AND paid_impressions_rate_units > 0" -%}
{%- macro same_post_term(channel) -%}
{%- set other = "organic" if channel == "paid" else "paid" -%}
CASE WHEN {{ has_rate_units_of_both_channels }} THEN CAST(
    CAST({{ channel }}_impressions_rate_engagements AS DOUBLE) * {{ other }}_impressions_rate_units * 1e18
    / (CAST(organic_impressions_rate_units AS DOUBLE) + paid_impressions_rate_units) AS HUGEINT
) END
{%- endmacro -%}

{%- set group_post_counts = ("posts", "organic_only_posts", "paid_only_posts", "both_channels_posts", "same_post_lift_posts") -%}
{%- set same_post_columns = ("same_post_paid", "same_post_organic") -%}

{#- All sums and counts of a group, if a row is a post. -#}
{%- macro group_totals_of_posts(columns) -%}
{%- set organic = "(organic_impressions IS NOT NULL OR organic_engagements IS NOT NULL)" %}
{%- set paid = "(paid_impressions IS NOT NULL OR paid_engagements IS NOT NULL)" %}
    count(*) AS posts,
    {{- sums(columns) }},
    {{- post_counts(columns, rows_are_posts=true) }},
    count(*) FILTER ({{ organic }} AND NOT {{ paid }}) AS organic_only_posts,
    count(*) FILTER ({{ paid }} AND NOT {{ organic }}) AS paid_only_posts,
    count(*) FILTER ({{ organic }} AND {{ paid }}) AS both_channels_posts,
    count(*) FILTER ({{ has_rate_units_of_both_channels }}) AS same_post_lift_posts,
    sum({{ same_post_term("paid") }}) AS same_post_paid,
    sum({{ same_post_term("organic") }}) AS same_post_organic
{%- endmacro -%}

{#- The same, if a row is a group of posts. -#}
{%- macro group_totals_of_groups(columns) -%}
{{- sums(columns) }},
    {{- post_counts(columns, rows_are_posts=false) }}
{%- for name in group_post_counts %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
{%- endfor %}
{%- for name in same_post_columns %},
    sum({{ name }}) AS {{ name }}
{%- endfor %}
{%- endmacro -%}
