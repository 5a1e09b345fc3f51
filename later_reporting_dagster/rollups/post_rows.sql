-- Several queries read posts_published, so it is copied: opening its files once more would take longer than the query. In SQL,
-- a temporary table comes before a view of the same name.
CREATE OR REPLACE TEMPORARY TABLE posts_published AS
SELECT date, {{ published_columns | join(", ") }} FROM memory.main.posts_published;

-- A post in several campaigns, at the same time or one after the other, is counted in two ways: in each campaign by tables
-- whose grain has a campaign (counted_per = 'campaign'), and once by the other tables ('post'). These use the row with the
-- lowest campaign id of each day; the other rows should report the same numbers. A post in one campaign is counted in the
-- same way by all tables ('either').
CREATE TYPE IF NOT EXISTS counting AS ENUM ('either', 'campaign', 'post');
-- Posts of several instances with the same id are among them, too, because grouping by an integer is fast; it changes nothing.
CREATE OR REPLACE TABLE multi_campaign_posts AS
SELECT post_id
FROM (SELECT campaign_id, post_id FROM post_metrics_daily UNION ALL SELECT campaign_id, post_id FROM posts_published)
GROUP BY post_id HAVING min(campaign_id) <> max(campaign_id);
{% for raw_table in raw_tables %}
CREATE OR REPLACE TABLE {{ raw_table }}_of_several_campaigns AS
SELECT *, row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) > 1 AS is_duplicate
FROM {{ raw_table }}_rows SEMI JOIN multi_campaign_posts USING (post_id);

-- The rows of the raw table, and those of posts in several campaigns once more without a campaign.
CREATE OR REPLACE VIEW {{ raw_table }}_counted AS
SELECT
    CAST(CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counting) AS counted_per,
    {{ raw_table }}_rows.*
FROM {{ raw_table }}_rows LEFT JOIN multi_campaign_posts USING (post_id)
UNION ALL
SELECT 'post', * EXCLUDE (is_duplicate) REPLACE (NULL AS campaign_id)
FROM {{ raw_table }}_of_several_campaigns
WHERE NOT is_duplicate;
{% endfor %}
