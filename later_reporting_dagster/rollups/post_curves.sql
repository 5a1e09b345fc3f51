-- Relations of post_benchmarks and organic_paid_by_age: the posts of the last year, each once, with what they earned by age.
-- The age of a post is the number of days since its publication.
--
--   recent_posts  the posts of the last 90 days, and the peers: in each group (platform and content type), all posts of the
--                 last year, or in a large group a sample of about `maximum_peers`, which the post id decides
--   post_days     what these posts earned on each day
--   curves        for each peer and age at which it was seen, what it had earned by then. A post is seen at an age if every
--                 day from its publication to that age has a file of its instance in post_metrics_daily
{%- import "measures.sql" as measures with context %}

-- What only the windows need takes too much memory to be kept.
DROP TABLE IF EXISTS running_sums;
DROP TABLE IF EXISTS posts_in_slices;

CREATE OR REPLACE TABLE days_in_a_row AS
SELECT instance_id, date AS published_on, max(date) OVER (PARTITION BY instance_id, run) AS last_in_a_row
FROM (
    SELECT instance_id, date, date - CAST(row_number() OVER (PARTITION BY instance_id ORDER BY date) AS INTEGER) AS run
    FROM stored_files WHERE table_name = 'post_metrics_daily'
);

CREATE OR REPLACE TABLE recent_posts AS
WITH of_year AS (
    FROM posts_published, (SELECT max(published_on) AS last_day FROM days_in_a_row)
    WHERE date BETWEEN last_day - 364 AND last_day AND {{ measures.is_within_limits(metrics) }}
),
groups AS (
    SELECT platform, content_type, count(*) AS published, row_number() OVER (ORDER BY platform, content_type) AS group_number
    FROM of_year
    GROUP BY platform, content_type
),
chosen AS (
    SELECT
        of_year.* EXCLUDE (date), date AS published_on, group_number,
        -- Multiplied by this number, neighbouring ids spread evenly.
        CAST(post_id AS HUGEINT) * 2654435761 % 4294967296 * published < CAST({{ maximum_peers }} AS HUGEINT) * 4294967296 AS is_peer
    FROM of_year JOIN groups ON {{ measures.same("of_year", "groups", ("platform", "content_type")) }}
    WHERE date > last_day - {{ maximum_age }} OR is_peer
    QUALIFY row_number() OVER (PARTITION BY instance_id, post_id ORDER BY date DESC, campaign_id) = 1
)
SELECT
    instance_id, post_id, {{ post_labels | join(", ") }}, group_number, is_peer, published_on, last_day,
    last_day - published_on AS age, coalesce(last_in_a_row - published_on + 1, 0) AS ages_seen
FROM chosen LEFT JOIN days_in_a_row USING (instance_id, published_on);

CREATE OR REPLACE TABLE post_days AS
SELECT instance_id, post_id, group_number, is_peer, ages_seen, published_on, last_day, date, {{ sum_columns | join(", ") }}
FROM post_metrics_daily_counted JOIN recent_posts USING (instance_id, post_id)
WHERE counted_per IN ('either', 'post');

CREATE OR REPLACE TABLE curves AS
WITH days AS (
    SELECT
        instance_id, post_id, group_number, ages_seen, greatest(date - published_on, 0) AS age,
        {{- measures.sums(sum_columns) }}
    FROM post_days WHERE is_peer AND date - published_on < {{ maximum_age }}
    GROUP BY ALL
    UNION ALL BY NAME
    -- So that a curve begins with the publication.
    SELECT instance_id, post_id, group_number, ages_seen, -1 AS age FROM recent_posts WHERE is_peer
),
steps AS (
    SELECT
        group_number, greatest(age, 0) AS age, least(ages_seen, {{ maximum_age }}, lead(age) OVER by_age) AS next_age
        {%- for name in sum_columns %},
        {% if name in integer_columns %}CAST(sum({{ name }}) OVER by_age AS BIGINT){% else %}sum({{ name }}) OVER by_age{% endif %} AS {{ name }}
        {%- endfor %}
    FROM days
    WINDOW by_age AS (PARTITION BY instance_id, post_id ORDER BY age ROWS UNBOUNDED PRECEDING)
)
SELECT
    group_number, unnest(range(age, next_age)) AS age, {{ curve_measures | reject("in", post_rates) | join(", ") }}
    {{- measures.engagement_rates() }}
FROM steps;
