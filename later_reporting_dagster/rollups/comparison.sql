{#- Groups of posts, and how their channels compare: common table expressions, of which `compared` is the last. -#}
{%- import "measures.sql" as measures with context -%}
{%- set lifts = measures.lifts -%}

{#- `cells` are sums of posts by `by`, creator and platform; `posts` are the posts. -#}
{%- macro comparison(by, names, cells, posts) -%}
totals AS (
    SELECT
        {{ by | join(", ") }},
        {{- measures.cell_sums(names) }},
        count(DISTINCT creator_id) + coalesce(max(CAST(creator_id IS NULL AS INTEGER)), 0) AS creators
    FROM {{ cells }}
    GROUP BY {{ by | join(", ") }}
),
-- Posts of one creator are not independent of each other: where a group has several creators, these are the sample.
clusters AS (
    SELECT
        {{ by | join(", ") }}
        {%- for name in parts + lifts %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM {{ cells }} AS cells
    WHERE {{ "false AND " if "creator_id" in by }}creator_id IS NOT NULL
        AND EXISTS (FROM totals WHERE {{ measures.same("totals", "cells", by) }} AND creators > 1)
    GROUP BY {{ by | join(", ") }}, creator_id
    UNION ALL
    SELECT
        {{ by | join(", ") }}, {{ parts | join(", ") }},
        {{ measures.same_post("paid") }}, {{ measures.same_post("organic") }}
    FROM {{ posts }} AS posts
    {%- if "creator_id" not in by %}
    WHERE creator_id IS NULL
        OR EXISTS (FROM totals WHERE {{ measures.same("totals", "posts", by) }} AND creators = 1)
    {%- endif %}
),
-- What share of the whole a cluster has, and by how much the log of a lift moves when it is left out.
left_out AS (
    SELECT
        {% for name in by %}totals.{{ name }}, {% endfor -%}
        greatest(clusters.organic_impressions_rate_units, clusters.paid_impressions_rate_units) > 0 AS counts
        {%- for name in parts + lifts %},
        coalesce(CAST(clusters.{{ name }} AS DOUBLE), 0) / nullif(CAST(totals.{{ name }} AS DOUBLE), 0) AS {{ name }}_share
        {%- endfor %},
        ln(
            left_of(paid_impressions_rate_engagements_share) * left_of(organic_impressions_rate_units_share)
            / (left_of(paid_impressions_rate_units_share) * left_of(organic_impressions_rate_engagements_share))
        ) AS lift_move,
        clusters.same_post_paid IS NOT NULL AS same_post_counts,
        ln(left_of(same_post_paid_share) / left_of(same_post_organic_share)) AS same_post_move,
        CAST(clusters.same_post_paid + clusters.same_post_organic AS DOUBLE)
            / nullif(CAST(totals.same_post_paid + totals.same_post_organic AS DOUBLE), 0) AS same_post_share
    FROM clusters JOIN totals ON {{ measures.same("clusters", "totals", by) }}
),
jackknife AS (
    SELECT
        {{ by | join(", ") }},
        sum(exact_square(lift_move)) FILTER (counts) AS lift_squares,
        count(lift_move) FILTER (counts) AS lift_moved,
        count(*) FILTER (counts) AS lift_clusters,
        {%- for name in parts %}
        1 / nullif(CAST(sum(exact_square({{ name }}_share)) AS DOUBLE), 0) AS {{ name }},
        {%- endfor %}
        sum(exact_square(same_post_move)) FILTER (same_post_counts) AS same_post_squares,
        count(same_post_move) FILTER (same_post_counts) AS same_post_moved,
        count(*) FILTER (same_post_counts) AS same_post_clusters,
        1 / nullif(CAST(sum(exact_square(same_post_share)) AS DOUBLE), 0) AS same_post
    FROM left_out
    GROUP BY {{ by | join(", ") }}
),
reaches AS (
    SELECT
        {{ by | join(", ") }},
        CASE WHEN organic_impressions_rate_units + paid_impressions_rate_units > 0 THEN significant(
            least(organic_impressions_rate_units, paid_impressions_rate_units)
        ) END AS paid_lift_posts_effective,
        reach(
            lift_squares, lift_moved, lift_clusters, paid_lift_posts_effective,
            -- Engagements of few clusters tell less than their impressions do.
            least(
                paid_lift_posts_effective - 1,
                greatest(6, least(organic_impressions_rate_engagements, paid_impressions_rate_engagements) - 1)
            )
        ) AS lift_reach,
        significant(same_post) AS same_post_lift_posts_effective,
        reach(
            same_post_squares, same_post_moved, same_post_clusters,
            same_post_lift_posts_effective, same_post_lift_posts_effective - 1
        ) AS same_post_reach
    FROM jackknife
),
{%- if "platform" not in by %}
platforms AS (
    SELECT
        {{ by | join(", ") }}, platform
        {%- for name in parts + ("organic_impressions", "paid_impressions") %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM {{ cells }}
    GROUP BY {{ by | join(", ") }}, platform
),
-- Paid engagements against those that the impressions would have had at the organic rate of their platform.
mixes AS (
    SELECT
        {{ by | join(", ") }},
        quotient(
            sum(paid_impressions_rate_engagements) FILTER (paid_impressions_rate_units > 0 AND organic_impressions_rate_units > 0),
            -- In order, on which a sum of floats depends.
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
        significant(paid_lift * exp(-lift_reach)) AS paid_lift_low,
        significant(paid_lift * exp(lift_reach)) AS paid_lift_high,
        verdict(paid_lift_low, paid_lift_high) AS paid_lift_verdict,
        quotient(same_post_paid, same_post_organic) AS same_post_lift,
        same_post_lift_posts_effective,
        significant(same_post_lift * exp(-same_post_reach)) AS same_post_lift_low,
        significant(same_post_lift * exp(same_post_reach)) AS same_post_lift_high,
        verdict(same_post_lift_low, same_post_lift_high) AS same_post_lift_verdict
        {%- if "platform" not in by %},
        paid_lift_mix_adjusted, paid_share_of_impressions_on_shared_platforms
        {%- endif %}
    FROM totals
    LEFT JOIN reaches ON {{ measures.same("totals", "reaches", by) }}
    {% if "platform" not in by %}LEFT JOIN mixes ON {{ measures.same("totals", "mixes", by) }}{% endif %}
)
{%- endmacro -%}
