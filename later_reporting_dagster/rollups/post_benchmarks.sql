-- The posts of the last 90 days: results to date, and where they stand among posts of the same platform, content type and age.
{%- import "measures.sql" as measures with context %}
WITH to_date AS (
    SELECT
        instance_id, post_id,
        {{- measures.sums(sum_columns) }}
        {%- for channel, _ in channels %},
        CAST(sum({{ channel }}_engagements) FILTER (date > last_day - 7) AS BIGINT) AS {{ channel }}_engagements_last_7_days
        {%- endfor %}
    FROM post_days
    GROUP BY ALL
),
days AS (
    SELECT instance_id, published_on, count(date) AS days
    FROM (SELECT DISTINCT instance_id, published_on FROM recent_posts) AS published
    JOIN stored_files USING (instance_id)
    WHERE table_name = 'post_metrics_daily' AND date >= published_on
    GROUP BY ALL
),
posts AS (
    SELECT
        recent_posts.*, coalesce(days, 0) AS days, to_date.* EXCLUDE (instance_id, post_id)
        {{- measures.engagement_rates() | indent(4) }}
    FROM recent_posts
    LEFT JOIN days USING (instance_id, published_on)
    LEFT JOIN to_date USING (instance_id, post_id)
    WHERE age < {{ maximum_age }}
),
peers AS (
    SELECT
        group_number, age, count(*) AS peers
        {%- for name in ranked %}, count({{ name }}) AS {{ name }}_peers{% endfor %}
    FROM curves
    GROUP BY ALL
),
{%- for name in ranked %}
{{ name }}_values AS (
    SELECT *, sum(equal) OVER (PARTITION BY group_number, age ORDER BY {{ name }}) AS not_above
    FROM (
        SELECT group_number, age, {{ name }}, count(*) AS equal FROM curves WHERE {{ name }} IS NOT NULL GROUP BY ALL
    ) AS counted
),
-- `below` counts the peers below the post, and half of the others that equal it.
{{ name }}_ranks AS (
    SELECT
        instance_id, post_id,
        not_above - CASE WHEN posts.{{ name }} = peers.{{ name }} THEN (equal + CAST(is_peer AS INTEGER)) / 2 ELSE 0 END AS below
    FROM posts ASOF JOIN {{ name }}_values AS peers
    ON posts.group_number = peers.group_number AND posts.age = peers.age AND posts.{{ name }} >= peers.{{ name }}
),
{%- endfor %}
compared AS (
    SELECT *, CAST(is_peer AND age < ages_seen AS INTEGER) AS itself
    FROM posts LEFT JOIN peers USING (group_number, age)
)
SELECT
    * EXCLUDE (peers), age + 1 AS days_expected, coalesce(peers - itself, 0) AS peers
    {%- for name in ranked %},
    CASE WHEN age < ages_seen AND {{ name }}_peers - itself >= {{ minimum_peers }} AND {{ name }} IS NOT NULL
        THEN round_significant(100 * coalesce({{ name }}_ranks.below, 0) / ({{ name }}_peers - itself))
    END AS {{ name }}_percentile
    {%- endfor %}
FROM compared
{%- for name in ranked %} LEFT JOIN {{ name }}_ranks USING (instance_id, post_id){% endfor %}
