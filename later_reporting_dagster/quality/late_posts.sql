-- Posts that a file of posts_published should have and lacks: named by a file of post_metrics_daily that has changed, or
-- known to be absent. `changed_files` has when the content of the former was requested, `known` the latter.

CREATE OR REPLACE TEMP TABLE named AS
-- The newest of its days says when a post was published.
SELECT
    instance_id, post_id,
    arg_max(CAST(post_date AS DATE), date) AS date,
    arg_max(requested_at, date) AS since
FROM post_metrics_daily JOIN changed_files USING (instance_id, date)
GROUP BY ALL
UNION ALL
SELECT instance_id, post_id, date, NULL FROM known
