-- Settled posts: how many there are, how many of them differ, when these were published, and of each metric the sum of their days
-- (`…_of_days`) and of their metrics to date (`…_to_date`).
--
-- A post is settled if every day is recorded from its publication to at least `settled_after_days` days later. Only the
-- newest days of each instance without a gap are considered, and of a post those before its metrics to date were requested.
WITH recorded AS (
    SELECT instance_id, date, date - CAST(row_number() OVER (PARTITION BY instance_id ORDER BY date) AS INTEGER) AS run
    FROM stored_files
    WHERE table_name = 'post_metrics_daily'
),
settled AS (
    SELECT instance_id, min(date) AS first_day, max(date) - {{ settled_after_days }} AS last_day
    FROM recorded
    GROUP BY instance_id, run
    QUALIFY run = max(run) OVER (PARTITION BY instance_id)
),
posts AS (
    SELECT posts_published.*, CAST(requested_at AS DATE) AS requested_on
    FROM posts_published JOIN settled USING (instance_id)
    LEFT JOIN (FROM requests WHERE table_name = 'posts_published') AS requests USING (instance_id, date)
    WHERE date BETWEEN first_day AND last_day
),
days AS (
    SELECT
        instance_id, campaign_id, post_id
        {%- for name in compared %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM post_metrics_daily SEMI JOIN posts
        ON posts.instance_id = post_metrics_daily.instance_id
        AND posts.campaign_id = post_metrics_daily.campaign_id
        AND posts.post_id = post_metrics_daily.post_id
        AND coalesce(post_metrics_daily.date < posts.requested_on, true)
    GROUP BY ALL
),
compared AS (
    SELECT
        posts.date
        {%- for name in compared %},
        days.{{ name }} AS {{ name }}_of_days, posts.{{ name }} AS {{ name }}_to_date
        {%- endfor %},
        {%- for name in compared %}
        abs(coalesce(days.{{ name }}, 0) - coalesce(posts.{{ name }}, 0)) * 100 > abs(coalesce(posts.{{ name }}, 0)) * {{ tolerance_percent }}
        {{- " OR" if not loop.last }}
        {%- endfor %} AS differs
    FROM posts LEFT JOIN days USING (instance_id, campaign_id, post_id)
)
SELECT
    count(*) AS posts,
    count(*) FILTER (differs) AS posts_that_differ,
    coalesce(list(DISTINCT date ORDER BY date) FILTER (differs), []) AS days_that_differ
    {%- for name in compared %},
    sum({{ name }}_of_days) AS {{ name }}_of_days, sum({{ name }}_to_date) AS {{ name }}_to_date
    {%- endfor %}
FROM compared
