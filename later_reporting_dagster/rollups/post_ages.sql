-- What posts had earned by each age. The age of a post is the number of days since its publication.
--
--   aged_posts  posts of posts_published of the last year, with their age, and the number of ages at which they were seen: each
--               day from the publication to that age has a file of the instance in post_metrics_daily. In each group (platform
--               and content type), all are peers, or of a large group a sample of about {{ maximum_peers }}, which the post id decides.
--               Likewise, of those that were seen to day {{ last_age }}, all or as many are in the sample of ages
--   post_ages   for each post of a sample and age at which it was seen, the sums from its publication to that age

-- What only the windows need takes much memory.
DROP TABLE IF EXISTS period_sums;

CREATE OR REPLACE TABLE aged_posts AS
WITH newest AS (SELECT max(date) AS last_day FROM stored_files WHERE table_name = 'post_metrics_daily'),
numbered AS (
    SELECT instance_id, date, date - CAST(row_number() OVER (PARTITION BY instance_id ORDER BY date) AS INTEGER) AS run
    FROM stored_files WHERE table_name = 'post_metrics_daily'
),
runs AS (
    SELECT instance_id, date AS published_on, max(date) OVER (PARTITION BY instance_id, run) AS last_in_a_row FROM numbered
)
SELECT
    instance_id, post_id, platform, content_type, published_on, last_day - published_on AS age,
    coalesce(last_in_a_row - published_on + 1, 0) AS ages_seen,
    -- Multiplied by this number, neighbouring ids spread evenly.
    CAST(post_id AS HUGEINT) * 2654435761 % 4294967296 AS place,
    place * count(*) OVER of_kind < CAST({{ maximum_peers }} AS HUGEINT) * 4294967296 AS is_peer,
    -- As a FILTER of a window over a million posts, the condition takes a hundred times as long.
    ages_seen > {{ last_age }} AND place * count(CASE WHEN ages_seen > {{ last_age }} THEN 1 END) OVER of_kind
        < CAST({{ maximum_peers }} AS HUGEINT) * 4294967296 AS is_in_age_sample
FROM known_posts CROSS JOIN newest LEFT JOIN runs USING (instance_id, published_on)
WHERE is_published AND published_on BETWEEN last_day - 364 AND last_day
WINDOW of_kind AS (PARTITION BY platform, content_type);

CREATE OR REPLACE TABLE post_ages AS
WITH ages AS (
    SELECT *, unnest(range(least(ages_seen, {{ maximum_age }}))) AS peer_age FROM aged_posts WHERE is_peer OR is_in_age_sample
),
days AS (
    SELECT
        instance_id, post_id, greatest(date - published_on, 0) AS peer_age,
        sum(organic_impressions) AS organic_impressions,
        sum(organic_engagements) AS organic_engagements,
        sum(organic_impressions) FILTER (organic_impressions <> 0 AND organic_engagements IS NOT NULL) AS rate_impressions,
        sum(organic_engagements) FILTER (organic_impressions <> 0) AS rate_engagements
    FROM post_days JOIN aged_posts USING (instance_id, post_id)
    WHERE is_peer OR is_in_age_sample
    GROUP BY ALL
)
SELECT
    instance_id, post_id, platform, content_type, is_peer, is_in_age_sample, peer_age AS age,
    sum(organic_impressions) OVER up_to_age AS organic_impressions,
    sum(organic_engagements) OVER up_to_age AS organic_engagements,
    rate(sum(rate_engagements) OVER up_to_age, sum(rate_impressions) OVER up_to_age) AS organic_engagement_rate
FROM ages LEFT JOIN days USING (instance_id, post_id, peer_age)
WINDOW up_to_age AS (PARTITION BY instance_id, post_id ORDER BY peer_age);
