-- Where posts stand, and which files that contradicts, from what was known at the last look and the files that have changed
-- since: `files` has all files as they are now, `stored_files` those that the views of the raw tables have.

-- A row without a post is a file that was read. A row of posts_published is a post in the file of `date`, since `since`.
-- A row of post_metrics_daily says that a post was published on `date`, by its newest row, which is in the file of `seen_on`.
CREATE OR REPLACE TABLE post_days AS
WITH unchanged AS (
    SELECT files.*
    FROM files SEMI JOIN (FROM known WHERE post_id IS NULL) AS known USING (table_name, instance_id, date, content_hash)
),
changed AS (
    SELECT files.* FROM files SEMI JOIN stored_files USING (table_name, instance_id, date)
),
published AS (
    SELECT DISTINCT instance_id, date, post_id, content_requested_at
    FROM posts_published JOIN changed USING (instance_id, date)
    WHERE table_name = 'posts_published'
),
-- A later file that no longer names a post takes back what it said.
named AS (
    SELECT instance_id, post_id, published_on, seen_on, since
    FROM (SELECT * EXCLUDE (date, table_name), date AS published_on FROM known WHERE table_name = 'post_metrics_daily') AS known
    SEMI JOIN unchanged ON table_name = 'post_metrics_daily' AND unchanged.instance_id = known.instance_id AND date = seen_on
    WHERE post_id IS NOT NULL
    UNION ALL
    SELECT DISTINCT instance_id, post_id, CAST(post_date AS DATE), date, content_requested_at
    FROM post_metrics_daily JOIN changed USING (instance_id, date)
    WHERE table_name = 'post_metrics_daily'
),
newest AS (
    SELECT
        instance_id, post_id,
        max(seen_on) AS seen_on,
        arg_max(published_on, seen_on) AS date,
        arg_max(since, seen_on) AS since
    FROM named
    GROUP BY ALL
)
SELECT table_name, instance_id, date, NULL::BIGINT AS post_id, NULL::DATE AS seen_on, NULL::TIMESTAMPTZ AS since, content_hash
FROM (FROM unchanged UNION ALL FROM changed)
UNION ALL
SELECT known.* FROM known SEMI JOIN unchanged USING (table_name, instance_id, date)
WHERE table_name = 'posts_published' AND post_id IS NOT NULL
UNION ALL
SELECT 'posts_published', instance_id, date, post_id, NULL, coalesce(known.since, content_requested_at), NULL
FROM published LEFT JOIN (FROM known WHERE table_name = 'posts_published') AS known USING (instance_id, date, post_id)
UNION ALL
SELECT 'post_metrics_daily', instance_id, date, post_id, newest.seen_on, coalesce(known.since, newest.since), NULL
FROM newest LEFT JOIN (FROM known WHERE table_name = 'post_metrics_daily') AS known USING (instance_id, date, post_id);

-- Posts that the file of `date` should have, by `seen_on`, unless the API has returned them for another day since; and posts
-- in it that `other_date` has as well. A later response than `since` decides.
CREATE OR REPLACE TABLE contradictions AS
WITH published AS (
    SELECT instance_id, date, post_id, since FROM post_days WHERE table_name = 'posts_published' AND post_id IS NOT NULL
)
SELECT instance_id, date, post_id, seen_on, NULL::DATE AS other_date, since
FROM post_days
SEMI JOIN (FROM post_days WHERE table_name = 'posts_published' AND post_id IS NULL) AS files USING (instance_id, date)
ANTI JOIN published
    ON published.instance_id = post_days.instance_id AND published.post_id = post_days.post_id
    AND (published.date = post_days.date OR published.since > post_days.since)
WHERE table_name = 'post_metrics_daily' AND post_id IS NOT NULL
UNION ALL
SELECT published.instance_id, published.date, post_id, NULL, others.date, others.since
FROM published JOIN published AS others USING (instance_id, post_id)
WHERE others.date <> published.date;
