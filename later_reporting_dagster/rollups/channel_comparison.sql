{#- Compares the channels of each group of posts: totals, rates, and the paid lift and the same-post lift with their
    intervals. Expands to a list of common table expressions. The last one, `compared`, is the result. -#}
{%- import "measures.sql" as measures with context -%}
{%- set same_post_columns = measures.same_post_columns -%}

{#- by         columns that identify a group
    subgroups  relation of sums of parts of a group, by at least `by` and creator_id
    posts      relation of the posts, with the columns `by`, creator_id and lift_columns -#}
{%- macro channel_comparison(by, subgroups, posts) -%}
totals AS (
    SELECT
        {{ by | join(", ") }}, {{ measures.group_totals_of_groups() }},
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
    WHERE creator_id IS NOT NULL
        AND EXISTS (FROM totals WHERE {{ measures.same("totals", "subgroups", by) }} AND creators > 1)
    GROUP BY {{ by | join(", ") }}, creator_id
    UNION ALL
    SELECT
        {{ by | join(", ") }}, {{ lift_columns | join(", ") }},
        {{ measures.same_post_term("paid") }}, {{ measures.same_post_term("organic") }}
    FROM {{ posts }} AS posts
    WHERE creator_id IS NULL
        OR EXISTS (FROM totals WHERE {{ measures.same("totals", "posts", by) }} AND creators = 1)
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
        END AS lift_effective,
        half_width(
            lift_squares, lift_changes, lift_clusters, lift_effective,
            -- If few clusters have engagements, the engagements limit the degrees of freedom more than the impressions.
            least(
                lift_effective - 1,
                greatest(
                    6,
                    least(organic_impressions_rate_engagements_effective, paid_impressions_rate_engagements_effective) - 1
                )
            )
        ) AS lift_half_width,
        half_width(
            same_post_squares, same_post_changes, same_post_clusters,
            round_significant(same_post_effective), round_significant(same_post_effective) - 1
        ) AS same_post_half_width
    FROM jackknife
),
compared AS (
    SELECT
        totals.*, {{ measures.rates() | indent(4) }},
        round_significant(paid_lift * exp(-lift_half_width)) AS paid_lift_low,
        round_significant(paid_lift * exp(lift_half_width)) AS paid_lift_high,
        verdict(paid_lift_low, paid_lift_high) AS paid_lift_verdict,
        round_significant(same_post_lift * exp(-same_post_half_width)) AS same_post_lift_low,
        round_significant(same_post_lift * exp(same_post_half_width)) AS same_post_lift_high,
        verdict(same_post_lift_low, same_post_lift_high) AS same_post_lift_verdict
    FROM totals
    LEFT JOIN half_widths ON {{ measures.same("totals", "half_widths", by) }}
)
{%- endmacro -%}
