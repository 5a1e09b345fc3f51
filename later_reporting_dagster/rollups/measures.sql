{#- Jinja macros for the expressions that several tables share: sums, post counts, rates, costs.

    sql_engine.py gives every template these variables:
      channels         (channel, prefix of its raw columns): ("organic", ""), ("paid", "paid_")
      metrics          the metrics that add up: raw column, name of the sum, type of a summed decimal (else empty), maximum
      maximum_spend    the most that a post may have cost
      rate_units       channel -> divisors of its engagement rates: impressions, and views if requested
      unit_costs       (unit cost, its measure, number of them): ("cpe", "engagements", 1), ("cpm", "impressions", 1000)
      sum_columns      columns that are summed: one per metric, and dividend and divisor of each rate
      counts           (summed column, column with the number of posts that report it)
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

{%- set organic_units, paid_units = "organic_impressions_rate_units", "paid_impressions_rate_units" -%}
{%- set organic_engagements, paid_engagements = "organic_impressions_rate_engagements", "paid_impressions_rate_engagements" -%}

{#- The sums and counts of a group, if a row is a post. -#}
{%- macro group_totals_of_posts() -%}
    count(*) AS posts,
    {{- sums(sum_columns) }},
    {%- for name, posts in counts %}
    count({{ name }}) AS {{ posts }},
    {%- endfor %}
    count(*) FILTER (has_both_rates({{ organic_units }}, {{ paid_units }})) AS same_posts,
    count(*) FILTER (
        is_higher_rate({{ paid_engagements }}, {{ paid_units }}, {{ organic_engagements }}, {{ organic_units }})
    ) AS same_posts_paid_higher,
    sum(same_post_term({{ paid_engagements }}, {{ paid_units }}, {{ organic_units }})) AS same_post_paid,
    sum(same_post_term({{ organic_engagements }}, {{ organic_units }}, {{ paid_units }})) AS same_post_organic
{%- endmacro -%}

{#- The number of creators of its posts with both rates. A post without a creator counts as one. -#}
{%- macro same_post_creators_of_posts() -%}
    count(DISTINCT creator_id) FILTER (has_both_rates({{ organic_units }}, {{ paid_units }}))
        + count(*) FILTER (creator_id IS NULL AND has_both_rates({{ organic_units }}, {{ paid_units }})) AS same_post_creators
{%- endmacro -%}

{#- All of these, if a row is a group of posts of one creator, or without a creator. -#}
{%- macro group_totals_of_groups() -%}
    CAST(sum(posts) AS BIGINT) AS posts,
    {{- sums(sum_columns) }},
    {%- for name in counts | map("last") | list + ["same_posts", "same_posts_paid_higher"] %}
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }},
    {%- endfor %}
    count(DISTINCT creator_id) FILTER (same_posts > 0)
        + coalesce(sum(same_posts) FILTER (creator_id IS NULL), 0) AS same_post_creators,
    sum(same_post_paid) AS same_post_paid, sum(same_post_organic) AS same_post_organic
{%- endmacro -%}

{#- The engagement rates, from sums: a comma precedes each. -#}
{%- macro engagement_rates() -%}
{%- for channel, _ in channels %}{% for unit in rate_units[channel] %},
    rate({{ channel }}_{{ unit }}_rate_engagements, {{ channel }}_{{ unit }}_rate_units) AS {{ channel }}_engagement_rate{{ "_by_views" if unit == "views" }}
{%- endfor %}{% endfor %}
{%- endmacro -%}

{#- The rates, their ratios and the share, from sums. -#}
{%- macro rates() -%}
    share(paid_impressions, organic_impressions) AS paid_share_of_impressions,
    CASE WHEN same_posts >= {{ minimum_same_posts }} AND same_post_creators >= {{ minimum_same_post_creators }}
        THEN quotient(same_post_paid, same_post_organic)
    END AS same_post_rate_ratio
    {{- engagement_rates() }}
    {%- for unit in rate_units.organic if unit in rate_units.paid %}{% set suffix = "_by_views" if unit == "views" else "" %},
    quotient(paid_engagement_rate{{ suffix }}, organic_engagement_rate{{ suffix }}) AS rate_ratio{{ suffix }}
    {%- endfor %}
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
