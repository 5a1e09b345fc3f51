{#- What the tables share: lists of columns, and the comparison of the two channels. -#}

{#- Columns of posts or of groups of them, summed. -#}
{%- macro sums(names) -%}
{%- for name in names %}
    {% if name in wholes %}whole(sum({{ name }}), '{{ name }}'){% else %}sum({{ name }}){% endif %} AS {{ name }}{{ "," if not loop.last }}
{%- endfor %}
{%- endmacro -%}

{#- How many posts each sum is of: counted where a row is a post, summed where it is a group of them. -#}
{%- macro coverage(names, counted) -%}
{%- for name in names if name in covered %}
    {% if counted %}count({{ name }}){% else %}CAST(sum({{ name }}_posts) AS BIGINT){% endif %} AS {{ name }}_posts{{ "," if not loop.last }}
{%- endfor %}
{%- endmacro -%}

{#- Rates, shares and the lift, from sums. -#}
{%- macro rates() -%}
{%- for channel, prefix in channels %}
    rate({{ channel }}_impressions_rate_engagements, {{ channel }}_impressions_rate_units) AS {{ channel }}_engagement_rate,
{%- endfor %}
    share(paid_impressions, organic_impressions) AS paid_share_of_impressions,
    share(paid_engagements, organic_engagements) AS paid_share_of_engagements,
    {{ lift("impressions") }} AS paid_lift
{%- for channel, prefix in channels if "views" in units[channel] %},
    rate({{ channel }}_views_rate_engagements, {{ channel }}_views_rate_units) AS {{ channel }}_engagement_rate_by_views
{%- endfor %}
{%- if "views" in units.organic and "views" in units.paid %},
    {{ lift("views") }} AS paid_lift_by_views
{%- endif %}
{%- endmacro -%}

{%- macro lift(measure) -%}
lift(paid_{{ measure }}_rate_engagements, paid_{{ measure }}_rate_units, organic_{{ measure }}_rate_engagements, organic_{{ measure }}_rate_units)
{%- endmacro -%}

{#- What was spent, from sums of its bounds. -#}
{%- macro costs() -%}
{%- for channel, prefix in channels %}
    {{ channel }}_spend_minimum_posts AS {{ channel }}_spend_posts,
{%- for cost, measure in unit_costs %}{% for side in ("minimum", "maximum") %}
    quotient({{ per[cost] }} * {{ channel }}_{{ cost }}_spend_{{ side }}, {{ channel }}_{{ cost }}_units) AS {{ channel }}_{{ cost }}_{{ side }},
{%- endfor %}{% endfor %}
{%- endfor %}
{%- for cost, measure in unit_costs %}{% for side in ("minimum", "maximum") %}
    quotient(
        {{ per[cost] }} * (organic_{{ cost }}_spend_{{ side }} + paid_{{ cost }}_spend_{{ side }}), CAST(organic_{{ cost }}_units AS HUGEINT) + paid_{{ cost }}_units
    ) AS blended_{{ cost }}_{{ side }},
{%- endfor %}{% endfor %}
    quotient(value_of_spend, valued_spend_maximum) AS organic_value_per_spend_minimum,
    quotient(value_of_spend, valued_spend_minimum) AS organic_value_per_spend_maximum
{%- endmacro -%}

{#- Whether two relations are of one group: null is a group of its own. -#}
{%- macro same(left, right, by) -%}
{%- for name in by %}{{ left }}.{{ name }} IS NOT DISTINCT FROM {{ right }}.{{ name }}{{ " AND " if not loop.last }}{% endfor -%}
{%- endmacro -%}

{#- What one post got on both channels is compared by the Mantel-Haenszel rate ratio: a post that reports both adds the
    engagements of each channel, times the other channel's share of its impressions. In whole units of 1e-18, whose sums
    do not depend on the order of rows: the units cancel out, and DuckDB casts integers to floats ten times as fast as it
    casts decimals. -#}
{%- set on_both = "organic_impressions_rate_units > 0 AND paid_impressions_rate_units > 0" -%}
{%- macro same_post(channel) -%}
{%- set other = "organic" if channel == "paid" else "paid" -%}
CASE WHEN {{ on_both }} THEN CAST(
    CAST({{ channel }}_impressions_rate_engagements AS DOUBLE) * {{ other }}_impressions_rate_units * 1e18
    / (CAST(organic_impressions_rate_units AS DOUBLE) + paid_impressions_rate_units) AS HUGEINT
) END
{%- endmacro -%}

{%- set counts = ("posts", "organic_only_posts", "paid_only_posts", "both_channels_posts", "same_post_lift_posts") -%}
{%- set lifts = ("same_post_paid", "same_post_organic") -%}

{#- All that adds up over posts, of posts. -#}
{%- macro post_sums(names) -%}
{%- set organic = "(organic_impressions IS NOT NULL OR organic_engagements IS NOT NULL)" %}
{%- set paid = "(paid_impressions IS NOT NULL OR paid_engagements IS NOT NULL)" %}
    count(*) AS posts,
    {{- sums(names) }},
    {{- coverage(names, counted=true) }},
    count(*) FILTER ({{ organic }} AND NOT {{ paid }}) AS organic_only_posts,
    count(*) FILTER ({{ paid }} AND NOT {{ organic }}) AS paid_only_posts,
    count(*) FILTER ({{ organic }} AND {{ paid }}) AS both_channels_posts,
    count(*) FILTER ({{ on_both }}) AS same_post_lift_posts,
    sum({{ same_post("paid") }}) AS same_post_paid,
    sum({{ same_post("organic") }}) AS same_post_organic
{%- endmacro -%}

{#- The same, of groups of posts. -#}
{%- macro cell_sums(names) -%}
{{- sums(names) }},
    {{- coverage(names, counted=false) }}
{%- for name in counts %},
    CAST(sum({{ name }}) AS BIGINT) AS {{ name }}
{%- endfor %}
{%- for name in lifts %},
    sum({{ name }}) AS {{ name }}
{%- endfor %}
{%- endmacro -%}
