{#- Jinja macros for the expressions that several tables share: sums, post counts, rates, costs.

    sql_engine.py gives every template these variables:
      channels         (channel, prefix of its raw columns): ("organic", ""), ("paid", "paid_")
      metrics          the metrics that add up: raw column, name of the sum, type of a summed decimal (else empty), maximum
      campaign_totals  the same for the metrics of campaigns
      maximum_spend    the most that a post may have cost
      rate_units       channel -> divisors of its engagement rates: impressions, and views if requested
      unit_costs       (unit cost, its measure, number of them): ("cpe", "engagements", 1), ("cpm", "impressions", 1000)
      sum_columns      columns that are summed: one per metric, and dividend and divisor of each rate
      counts           (summed column, column with the number of posts that report it)
      lift_columns     the sum columns from which the paid lift is computed
      cost_columns     columns that are summed for costs
      integer_columns  the summed columns that are integers
      grain, labels    of the table: see RollupTable
      measured         the columns of a comparison
      previous         the columns among them that windows also have for the previous period
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

{#- The same-post lift is the Mantel-Haenszel rate ratio over posts that report both channels: a post adds the engagements
    of each channel, multiplied by the other channel's share of the post's impressions. The terms are integers in units of
    1e-18, so that sums do not depend on the order of rows; the units cancel out. (Decimals would also work, but DuckDB casts
    integers to floats ten times as fast.) -#}
{%- macro same_post_term(channel) -%}
{%- set other = "organic" if channel == "paid" else "paid" -%}
CASE WHEN organic_impressions_rate_units > 0 AND paid_impressions_rate_units > 0 THEN CAST(
    CAST({{ channel }}_impressions_rate_engagements AS DOUBLE) * {{ other }}_impressions_rate_units * 1e18
    / (CAST(organic_impressions_rate_units AS DOUBLE) + paid_impressions_rate_units) AS HUGEINT
) END
{%- endmacro -%}

{%- set same_post_columns = ("same_post_paid", "same_post_organic") -%}

{#- All sums and counts of a group, if a row is a post. -#}
{%- macro group_totals_of_posts() -%}
    count(*) AS posts,
    {{- sums(sum_columns) }},
    {%- for name, posts in counts %}
    count({{ name }}) AS {{ posts }},
    {%- endfor %}
    count(organic_impressions_rate_units + paid_impressions_rate_units) AS same_post_lift_posts,
    sum({{ same_post_term("paid") }}) AS same_post_paid,
    sum({{ same_post_term("organic") }}) AS same_post_organic
{%- endmacro -%}

{#- The same, if a row is a group of posts. -#}
{%- macro group_totals_of_groups() -%}
    CAST(sum(posts) AS BIGINT) AS posts,
    {{- sums(sum_columns) }},
    {%- for _, posts in counts + [("", "same_post_lift_posts")] %}
    CAST(sum({{ posts }}) AS BIGINT) AS {{ posts }},
    {%- endfor %}
    sum(same_post_paid) AS same_post_paid, sum(same_post_organic) AS same_post_organic
{%- endmacro -%}

{#- The engagement rates, from sums: a comma precedes each. -#}
{%- macro engagement_rates() -%}
{%- for channel, _ in channels %}{% for unit in rate_units[channel] %},
    rate({{ channel }}_{{ unit }}_rate_engagements, {{ channel }}_{{ unit }}_rate_units) AS {{ channel }}_engagement_rate{{ "_by_views" if unit == "views" }}
{%- endfor %}{% endfor %}
{%- endmacro -%}

{#- The lifts, the share and the rates, from sums. -#}
{%- macro rates() -%}
{%- for measure in rate_units.organic if measure in rate_units.paid %}
    lift(paid_{{ measure }}_rate_engagements, paid_{{ measure }}_rate_units, organic_{{ measure }}_rate_engagements, organic_{{ measure }}_rate_units) AS paid_lift{{ "_by_views" if measure == "views" }},
{%- endfor %}
    share(paid_impressions, organic_impressions) AS paid_share_of_impressions,
    quotient(same_post_paid, same_post_organic) AS same_post_lift
    {{- engagement_rates() }}
{%- endmacro -%}

{#- Spend of both channels and costs per unit, from sums of `cost_columns`. -#}
{%- macro costs() -%}
    organic_spend + paid_spend AS total_spend, organic_spread + paid_spread AS total_spread,
{%- for cost, measure, _ in unit_costs %}{% for part in ("spend", measure) %}
    organic_{{ cost }}_{{ part }} + paid_{{ cost }}_{{ part }} AS total_{{ cost }}_{{ part }},
{%- endfor %}{% endfor %}
{%- for prefix in ("organic", "paid", "total") %}
    quotient(100 * CAST({{ prefix }}_spread AS DOUBLE), {{ prefix }}_spend) AS {{ prefix }}_spend_uncertainty_percent,
{%- for cost, measure, number in unit_costs %}
    quotient({{ number }} * CAST({{ prefix }}_{{ cost }}_spend AS DOUBLE), {{ prefix }}_{{ cost }}_{{ measure }}) AS {{ prefix }}_{{ cost }},
{%- endfor %}{% endfor %}
    quotient(organic_value, organic_value_spend) AS organic_value_per_spend
{%- endmacro -%}

{#- Join condition: both relations have the same values of `by`, where null equals null. -#}
{%- macro same(left, right, by) -%}
{%- for name in by %}{{ left }}.{{ name }} IS NOT DISTINCT FROM {{ right }}.{{ name }}{{ " AND " if not loop.last }}{% endfor -%}
{%- endmacro -%}
