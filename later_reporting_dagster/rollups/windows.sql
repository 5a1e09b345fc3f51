-- What the tables of windows share. The windows of a date basis and the periods before them overlap, so days are cut
-- into slices such that each of them is a run of whole slices, slice 0 being the newest days: rows are read once and
-- summed by post and slice.
{%- import "measures.sql" as measures with context %}
{%- set post = "instance_id, campaign_id, post_id" %}
{%- set traits = ("creator_id", "platform", "content_type") %}

CREATE OR REPLACE TABLE cuts AS
SELECT DISTINCT date_basis, first_day FROM periods WHERE "window" <> 'all';

CREATE OR REPLACE TABLE calendar AS
SELECT landed.date_basis, landed.date, CAST(count(DISTINCT cuts.first_day) AS UTINYINT) AS slice
FROM landed LEFT JOIN cuts ON cuts.date_basis = landed.date_basis AND cuts.first_day > landed.date
GROUP BY ALL;

-- A period ends with a slice, `slice`. Windows begin with slice 0, the period before one is that single slice.
CREATE OR REPLACE TABLE spans AS
SELECT periods.*, CAST(count(DISTINCT cuts.first_day) AS UTINYINT) AS slice
FROM periods LEFT JOIN cuts ON cuts.date_basis = periods.date_basis AND cuts.first_day > periods.first_day
GROUP BY ALL;

-- By performance date a post has a row a day. Its creator, platform and content type are those of the newest.
CREATE OR REPLACE TABLE recorded_by_campaign AS
SELECT
    {{ post }}, slice
    {%- for trait in traits %}, arg_max_null({{ trait }}, date) AS {{ trait }}{% endfor %},
    {{- measures.sums(names) }}
FROM post_metrics_daily_rows JOIN calendar USING (date)
WHERE date_basis = 'performance_date'
GROUP BY ALL;

-- By post date a post is a row: its metrics to date.
CREATE OR REPLACE TABLE published_by_campaign AS
SELECT {{ post }}, slice, {{ traits | join(", ") }}, {{ (names + spend_names) | join(", ") }}
FROM posts_published_rows JOIN calendar USING (date)
WHERE date_basis = 'post_date';

-- Posts of several campaigns, at once or one after the other. Where the grain has a campaign such a post counts in
-- each (`campaign`), elsewhere once (`post`); a post of one campaign counts everywhere (`both`).
CREATE OR REPLACE TABLE shared_posts AS
WITH posts AS (
    SELECT instance_id, campaign_id, post_id FROM recorded_by_campaign
    UNION ALL
    SELECT instance_id, campaign_id, post_id FROM published_by_campaign
)
SELECT instance_id, post_id
-- By number first: it is one column, and few posts remain.
FROM posts SEMI JOIN (SELECT post_id FROM posts GROUP BY post_id HAVING min(campaign_id) <> max(campaign_id)) USING (post_id)
GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id);
{% include "shared_posts.sql" %}
{% for table, basis, columns in (
    ("recorded", "performance_date", names), ("published", "post_date", names + spend_names)
) %}
CREATE OR REPLACE TABLE {{ table }}_once AS
SELECT
    instance_id, CAST(NULL AS BIGINT) AS campaign_id, post_id, slice
    {%- for trait in traits %}, arg_max_null({{ trait }}, date) AS {{ trait }}{% endfor %},
    {{- measures.sums(columns) }}
FROM {{ table }}_shared JOIN calendar USING (date)
WHERE date_basis = '{{ basis }}' AND place = 1
GROUP BY ALL;

CREATE OR REPLACE VIEW {{ table }} AS
SELECT
    CAST(CASE WHEN shared_posts.post_id IS NULL THEN 'both' ELSE 'campaign' END AS counting) AS counts_for,
    {{ table }}_by_campaign.*
FROM {{ table }}_by_campaign LEFT JOIN shared_posts USING (instance_id, post_id)
UNION ALL
SELECT 'post', * FROM {{ table }}_once;
{% endfor %}
-- What each post has earned from slice 0 up to a slice: it stays so until the next slice in which it has rows.
CREATE OR REPLACE TABLE recorded_so_far AS
SELECT
    counts_for, {{ post }}, slice, coalesce(lead(slice) OVER newest_first - 1, 255) AS until
    {%- for trait in traits %}, first_value({{ trait }}) OVER newest_first AS {{ trait }}{% endfor %}
    {%- for name in names %},
    {% if name in wholes %}whole(sum({{ name }}) OVER newest_first, '{{ name }}'){% else %}sum({{ name }}) OVER newest_first{% endif %} AS {{ name }}
    {%- endfor %}
FROM recorded
WINDOW newest_first AS (PARTITION BY post_id, campaign_id, instance_id ORDER BY slice ROWS UNBOUNDED PRECEDING);

-- Posts of the period before, at the age that this period's posts have: as recorded up to as many days ago as the
-- window has.
CREATE OR REPLACE VIEW published_before AS
SELECT
    published.counts_for, span
    {%- for name in ("instance_id", "campaign_id", "post_id") + traits %}, published.{{ name }}{% endfor %},
    {%- for name in names %}
    {% if name in wholes %}whole(sum(recorded.{{ name }}), '{{ name }}'){% else %}sum(recorded.{{ name }}){% endif %} AS {{ name }}{{ "," if not loop.last }}
    {%- endfor %}
FROM published JOIN spans ON published.slice = spans.slice AND date_basis = 'post_date' AND is_previous
LEFT JOIN recorded
    ON recorded.counts_for = published.counts_for AND recorded.instance_id = published.instance_id
    AND recorded.campaign_id IS NOT DISTINCT FROM published.campaign_id AND recorded.post_id = published.post_id
    AND recorded.slice >= published.slice
GROUP BY ALL;

-- The windows that a post's sums are of, by its slice: by performance date from there up to `until`, by post date, where
-- a post is in one slice, all that have it.
CREATE OR REPLACE TABLE recorded_in AS
SELECT slices.*, span
FROM (SELECT DISTINCT slice, until FROM recorded_so_far) AS slices
JOIN spans ON spans.slice BETWEEN slices.slice AND until
WHERE date_basis = 'performance_date' AND NOT is_previous;

CREATE OR REPLACE TABLE published_in AS
SELECT slices.slice, span
FROM (SELECT DISTINCT slice FROM published_by_campaign) AS slices
JOIN spans ON slices.slice <= spans.slice
WHERE date_basis = 'post_date' AND NOT is_previous;

-- All that adds up over posts, by span. A post has one row in a window or a period, so that sums of slices add up.
{%- set by = "counts_for, instance_id, campaign_id, " ~ traits | join(", ") %}
CREATE OR REPLACE TABLE cells AS
WITH recorded_cells AS (
    SELECT slice, until, {{ by }}, {{- measures.post_sums(names) }}
    FROM recorded_so_far
    GROUP BY ALL
),
published_cells AS (
    SELECT slice, {{ by }}, {{- measures.post_sums(names + spend_names) }}
    FROM published
    GROUP BY ALL
)
SELECT span, {{ by }}, {{- measures.cell_sums(names) }}
FROM recorded_cells JOIN recorded_in USING (slice, until)
GROUP BY ALL
UNION ALL BY NAME
SELECT span, {{ by }}, {{- measures.post_sums(names) }}
FROM recorded JOIN spans USING (slice)
WHERE date_basis = 'performance_date' AND is_previous
GROUP BY ALL
UNION ALL BY NAME
SELECT span, {{ by }}, {{- measures.post_sums(names) }}
FROM published_before
GROUP BY ALL
UNION ALL BY NAME
SELECT span, {{ by }}, {{- measures.cell_sums(names + spend_names) }}
FROM published_cells JOIN published_in USING (slice)
GROUP BY ALL;

-- A row a post and window.
CREATE OR REPLACE VIEW posts_in_windows AS
SELECT span, counts_for, {{ post }}, {{ traits | join(", ") }}, {{ parts | join(", ") }}
FROM recorded_so_far JOIN recorded_in USING (slice, until)
UNION ALL
SELECT span, counts_for, {{ post }}, {{ traits | join(", ") }}, {{ parts | join(", ") }}
FROM published JOIN published_in USING (slice);

-- How many days of a period are there of an instance. The period before is known by performance date where one is, by
-- post date where post_metrics_daily has each day up to the age compared at.
CREATE OR REPLACE TABLE days_there AS
WITH newest AS (SELECT max(date) AS day FROM landed WHERE date_basis = 'performance_date'),
there AS (
    SELECT
        span, spans.date_basis, is_previous, instances.instance_id, spans.first_day, spans.last_day,
        newest.day - CAST(date_diff('day', spans.first_day, spans.last_day) + 1 AS INTEGER) AS last_compared,
        count(landed.date) AS days
    FROM spans
    JOIN (SELECT DISTINCT date_basis, instance_id FROM landed) AS instances USING (date_basis)
    LEFT JOIN landed
        ON landed.date_basis = spans.date_basis AND landed.instance_id = instances.instance_id
        AND landed.date BETWEEN spans.first_day AND spans.last_day
    CROSS JOIN newest
    GROUP BY ALL
)
SELECT
    span, instance_id, days,
    days > 0 AND (
        date_basis = 'performance_date' OR NOT is_previous
        OR (
            SELECT count(*) FROM landed AS recorded
            WHERE recorded.date_basis = 'performance_date' AND recorded.instance_id = there.instance_id
            AND recorded.date BETWEEN there.first_day AND there.last_compared
        ) = date_diff('day', first_day, last_compared) + 1 AND last_compared >= last_day
    ) AS is_known
FROM there;
