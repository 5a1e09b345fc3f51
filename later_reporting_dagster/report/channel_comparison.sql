{#- Compares the channels of each group of posts: totals, rates, and the paid lift and the same-post lift with their
    intervals. Expands to a list of common table expressions. The last one, `compared`, is the result. -#}
{%- import "measures.sql" as measures with context -%}
{%- set same_post_columns = measures.same_post_columns -%}

{#- by           columns that identify a group
    sum_columns  columns to sum
    subgroups    relation of sums of parts of a group, by at least `by`, creator_id and platform
    posts        relation of the posts, with the columns `by`, creator_id and lift_columns -#}
{%- macro channel_comparison(by, sum_columns, subgroups, posts) -%}
totals AS (
    SELECT
        {{ by | join(", ") }},
        {{- measures.group_totals_of_groups(sum_columns) }},
        count(DISTINCT creator_id) + coalesce(max(CAST(creator_id IS NULL AS INTEGER)), 0) AS creators
    FROM {{ subgroups }}
    GROUP BY {{ by | join(", ") }}
),
-- The independent observations of a group. Posts of one creator are not independent, so each creator is a cluster, and
-- each post without a creator. But if all posts of the group are of one creator, each post is a cluster. (`creators`
-- counts all posts without a creator as one creator.)
clusters AS (
    SELECT
        {{ by | join(", ") }}
        {%- for name in lift_columns + same_post_columns %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM {{ subgroups }} AS subgroups
    WHERE {{ "false AND " if "creator_id" in by }}creator_id IS NOT NULL
        AND EXISTS (FROM totals WHERE {{ measures.same("totals", "subgroups", by) }} AND creators > 1)
    GROUP BY {{ by | join(", ") }}, creator_id
    UNION ALL
    SELECT
        {{ by | join(", ") }}, {{ lift_columns | join(", ") }},
        {{ measures.same_post_term("paid") }}, {{ measures.same_post_term("organic") }}
    FROM {{ posts }} AS posts
    {%- if "creator_id" not in by %}
    WHERE creator_id IS NULL
        OR EXISTS (FROM totals WHERE {{ measures.same("totals", "posts", by) }} AND creators = 1)
    {%- endif %}
),
-- Each cluster's share of the group's sums, and how the log of each lift changes if the cluster is left out.
leave_one_out AS (
    SELECT
        {% for name in by %}totals.{{ name }}, {% endfor -%}
        coalesce(clusters.organic_impressions_rate_units, clusters.paid_impressions_rate_units) IS NOT NULL AS is_in_lift
        {%- for name in lift_columns + same_post_columns %},
        coalesce(CAST(clusters.{{ name }} AS DOUBLE), 0) / nullif(CAST(totals.{{ name }} AS DOUBLE), 0) AS {{ name }}_share
        {%- endfor %},
        ln(
            remaining(paid_impressions_rate_engagements_share) * remaining(organic_impressions_rate_units_share)
            / (remaining(paid_impressions_rate_units_share) * remaining(organic_impressions_rate_engagements_share))
        ) AS lift_change,
        clusters.same_post_paid IS NOT NULL AS is_in_same_post_lift,
        ln(remaining(same_post_paid_share) / remaining(same_post_organic_share)) AS same_post_change,
        CAST(clusters.same_post_paid + clusters.same_post_organic AS DOUBLE)
            / nullif(CAST(totals.same_post_paid + totals.same_post_organic AS DOUBLE), 0) AS same_post_share
    FROM clusters JOIN totals ON {{ measures.same("clusters", "totals", by) }}
),
-- Sums over the clusters. 1 / Σ share² is the effective number of clusters: that many equal clusters would be as
-- informative.
jackknife AS (
    SELECT
        {{ by | join(", ") }},
        sum(exact_square(lift_change)) FILTER (is_in_lift) AS lift_squares,
        count(lift_change) FILTER (is_in_lift) AS lift_changes,
        count(*) FILTER (is_in_lift) AS lift_clusters,
        {%- for name in lift_columns %}
        1 / nullif(CAST(sum(exact_square({{ name }}_share)) AS DOUBLE), 0) AS {{ name }}_effective,
        {%- endfor %}
        sum(exact_square(same_post_change)) FILTER (is_in_same_post_lift) AS same_post_squares,
        count(same_post_change) FILTER (is_in_same_post_lift) AS same_post_changes,
        count(*) FILTER (is_in_same_post_lift) AS same_post_clusters,
        1 / nullif(CAST(sum(exact_square(same_post_share)) AS DOUBLE), 0) AS same_post_effective
    FROM leave_one_out
    GROUP BY {{ by | join(", ") }}
),
half_widths AS (
    SELECT
        {{ by | join(", ") }},
        CASE WHEN organic_impressions_rate_units_effective + paid_impressions_rate_units_effective > 0
            THEN round_significant(
                least(organic_impressions_rate_units_effective, paid_impressions_rate_units_effective)
            )
        END AS paid_lift_posts_effective,
        half_width(
            lift_squares, lift_changes, lift_clusters, paid_lift_posts_effective,
            -- If few clusters have engagements, the engagements limit the degrees of freedom more than the impressions.
            least(
                paid_lift_posts_effective - 1,
                greatest(
                    6,
                    least(organic_impressions_rate_engagements_effective, paid_impressions_rate_engagements_effective) - 1
                )
            )
        ) AS lift_half_width,
        round_significant(same_post_effective) AS same_post_lift_posts_effective,
        half_width(
            same_post_squares, same_post_changes, same_post_clusters,
            same_post_lift_posts_effective, same_post_lift_posts_effective - 1
        ) AS same_post_half_width
    FROM jackknife
),
{%- if "platform" not in by %}
platforms AS (
    SELECT
        {{ by | join(", ") }}, platform
        {%- for name in lift_columns + ("organic_impressions", "paid_impressions") %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM {{ subgroups }}
    GROUP BY {{ by | join(", ") }}, platform
),
-- Paid engagements, divided by the engagements that the paid impressions would have at the organic rate of their platform.
platform_mix AS (
    SELECT
        {{ by | join(", ") }},
        quotient(
            sum(paid_impressions_rate_engagements) FILTER (paid_impressions_rate_units > 0 AND organic_impressions_rate_units > 0),
            -- An ordered list, because a sum of floats depends on the order.
            list_sum(list(
                CAST(paid_impressions_rate_units AS DOUBLE) * organic_impressions_rate_engagements
                / organic_impressions_rate_units
                ORDER BY platform
            ) FILTER (paid_impressions_rate_units > 0 AND organic_impressions_rate_units > 0))
        ) AS paid_lift_mix_adjusted,
        share(
            sum(paid_impressions) FILTER (organic_impressions IS NOT NULL),
            sum(organic_impressions) FILTER (paid_impressions IS NOT NULL)
        ) AS paid_share_of_impressions_on_shared_platforms
    FROM platforms
    GROUP BY {{ by | join(", ") }}
),
{%- endif %}
compared AS (
    SELECT
        {% for name in by %}totals.{{ name }}, {% endfor -%}
        totals.* EXCLUDE ({{ by | join(", ") }}),
        {{ measures.rates() | indent(8) }},
        paid_lift_posts_effective,
        round_significant(paid_lift * exp(-lift_half_width)) AS paid_lift_low,
        round_significant(paid_lift * exp(lift_half_width)) AS paid_lift_high,
        verdict(paid_lift_low, paid_lift_high) AS paid_lift_verdict,
        quotient(same_post_paid, same_post_organic) AS same_post_lift,
        same_post_lift_posts_effective,
        round_significant(same_post_lift * exp(-same_post_half_width)) AS same_post_lift_low,
        round_significant(same_post_lift * exp(same_post_half_width)) AS same_post_lift_high,
        verdict(same_post_lift_low, same_post_lift_high) AS same_post_lift_verdict
        {%- if "platform" not in by %},
        paid_lift_mix_adjusted, paid_share_of_impressions_on_shared_platforms
        {%- endif %}
    FROM totals
    LEFT JOIN half_widths ON {{ measures.same("totals", "half_widths", by) }}
    {% if "platform" not in by %}LEFT JOIN platform_mix ON {{ measures.same("totals", "platform_mix", by) }}{% endif %}
)
{%- endmacro -%}
