-- What share of its result of day {{ last_age }} a post had at each age: quartiles of the posts of the last year that were seen on each
-- day up to then, and their share pooled, in which a post counts as much as it earned. Left out are posts with nothing reported by age 2, because their first day holds the results of several,
-- and posts of networks that creators report themselves, which are never updated. A post whose result of day {{ last_age }} is 0 is in no
-- share of it.
WITH seen AS (
    SELECT
        platform, content_type, age,
        {%- for name in ("organic_impressions", "organic_engagements") %}
        {{ name }}, nullif(last_value({{ name }}) OVER of_post, 0) AS {{ name }}_in_all,
        {{ name }} / {{ name }}_in_all AS {{ name }}_share,
        {%- endfor %}
        max(CASE WHEN age = 2 THEN organic_impressions IS NOT NULL OR organic_engagements IS NOT NULL END) OVER of_post AS is_found_early
    FROM post_ages
    WHERE is_in_age_sample AND age <= {{ last_age }} AND platform NOT IN ({{ self_reported }})
    WINDOW of_post AS (PARTITION BY instance_id, post_id ORDER BY age ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
SELECT
    platform, content_type, age, count(*) AS posts,
    {%- for name in ("organic_impressions", "organic_engagements") %}{% for percent in quartiles %}
    round_significant(100 * quantile_cont({{ name }}_share, {{ percent / 100 }})) AS {{ name }}_share_p{{ percent }},
    {%- endfor %}
    quotient(
        100 * sum({{ name }}) FILTER ({{ name }}_share IS NOT NULL), sum({{ name }}_in_all) FILTER ({{ name }}_share IS NOT NULL)
    ) AS {{ name }}_share_pooled,
    {%- endfor %}
FROM seen
WHERE is_found_early
GROUP BY ALL
