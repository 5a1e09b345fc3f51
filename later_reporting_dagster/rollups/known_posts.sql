-- Each post of either raw table, once: `known_posts`.

-- Several queries read posts_published, whose files are opened once.
CREATE OR REPLACE TABLE published_rows AS
SELECT
    date, {{ known_attributes | join(", ") }}, instance_id, campaign_id, post_id,
    {%- for metric in metrics %}
    CAST({{ metric.column }} AS {{ metric.type }}) AS {{ metric.name }},
    {%- endfor %}
    cost_low(cpe, engagements, cpm, impressions) AS low,
    cost_high(cpe, engagements, cpm, impressions) AS high
FROM posts_published
WHERE {{ within_limits }};

CREATE OR REPLACE TABLE known_posts AS
WITH several AS (
    SELECT instance_id, post_id FROM published_rows GROUP BY ALL HAVING count(*) > 1
),
-- A post that was re-dated stands in two days: the newest one counts. Of its rows in several campaigns, the one with the lowest
-- campaign id counts, and the cost is within the bounds of all of them. If these disagree, the cost is unknown.
newest AS (
    SELECT *, [campaign_id] AS campaign_ids FROM published_rows ANTI JOIN several USING (instance_id, post_id)
    UNION ALL BY NAME
    SELECT
        * EXCLUDE (low, high),
        max(low) OVER same_post AS low,
        min(high) OVER same_post AS high,
        list_sort(list(campaign_id) OVER same_post) AS campaign_ids
    FROM (
        FROM published_rows SEMI JOIN several USING (instance_id, post_id)
        QUALIFY date = max(date) OVER (PARTITION BY instance_id, post_id)
    )
    WINDOW same_post AS (PARTITION BY instance_id, post_id)
    QUALIFY campaign_id = min(campaign_id) OVER same_post
),
-- Posts that are not in posts_published, as those that were published before the start date, have no metrics to date.
recorded_ids AS (
    SELECT DISTINCT instance_id, post_id FROM post_days ANTI JOIN newest USING (instance_id, post_id)
),
only_recorded AS (
    SELECT
        instance_id, post_id,
        {%- for name in known_attributes %}
        arg_max_null({{ name }}, (date, -campaign_id)) AS {{ name }},
        {%- endfor %}
        list_sort(list(DISTINCT campaign_id)) AS campaign_ids
    FROM post_metrics_daily SEMI JOIN recorded_ids USING (instance_id, post_id)
    WHERE {{ within_limits }}
    GROUP BY ALL
)
SELECT
    * EXCLUDE (low, high, campaign_id, date),
    date IS NOT NULL AS is_published,
    CAST(post_date AS DATE) AS published_on,
    bounded(low, low, high) AS content_cost_low,
    bounded(high, low, high) AS content_cost_high
FROM (FROM newest UNION ALL BY NAME FROM only_recorded)
WHERE post_date IS NOT NULL;  -- without the day of its publication, a post has no age and no cost of its own

-- The name and the links of a creator are those of the creator's newest post.
CREATE OR REPLACE VIEW creators AS
SELECT
    instance_id, creator_id,
    {%- for name in creator_labels %}
    arg_max_null({{ name }}, (is_published, post_date, post_id)) AS {{ name }},
    {%- endfor %}
FROM known_posts
WHERE creator_id IS NOT NULL
GROUP BY ALL;
