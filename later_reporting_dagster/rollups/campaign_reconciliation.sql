-- The totals of each campaign, day and metric, as the API reports them (`of_campaign`) and as its posts add up (`of_posts`):
-- how many (day, campaign) pairs there are, the sums over them, and the first differences.
--
--   compared        variable: columns of both tables that are compared
--   stored_files    relation of the files of post_metrics_daily
--
-- A day of a campaign can be compared (`is_comparable`) if each instance of the campaign has a file of posts of that day.
{%- set sums = "sum(COLUMNS(['" ~ compared | join("', '") ~ "']))" %}
WITH campaign_sums AS (
    SELECT date, campaign_id, {{ sums }} FROM campaign_performance_daily ANTI JOIN retired_campaigns USING (campaign_id) GROUP BY ALL
),
post_sums AS (SELECT date, campaign_id, {{ sums }} FROM post_metrics_daily GROUP BY ALL),
campaign_days AS (
    SELECT
        date, campaign_id, count(campaign_owners.instance_id) > 0 AS is_known,
        is_known AND count(campaign_owners.instance_id) = count(stored_files.instance_id) AS is_comparable
    FROM campaign_sums
    LEFT JOIN campaign_owners USING (campaign_id)
    LEFT JOIN (FROM stored_files WHERE table_name = 'post_metrics_daily') AS stored_files USING (date, instance_id)
    GROUP BY ALL
),
-- Values that both report: UNPIVOT leaves out nulls.
compared AS (
    SELECT *, abs(of_campaign - of_posts) * 100 > {{ tolerance_percent }} * abs(of_posts) AS differs
    FROM (FROM campaign_sums UNPIVOT (of_campaign FOR metric IN ({{ compared | join(", ") }})))
    JOIN (FROM post_sums UNPIVOT (of_posts FOR metric IN ({{ compared | join(", ") }}))) USING (date, campaign_id, metric)
    SEMI JOIN (FROM campaign_days WHERE is_comparable) AS comparable USING (date, campaign_id)
),
sums AS (SELECT metric, sum(of_campaign) AS of_campaign, sum(of_posts) AS of_posts FROM compared GROUP BY metric),
examples AS (SELECT * EXCLUDE (differs) FROM compared WHERE differs ORDER BY ALL LIMIT {{ max_examples }})
SELECT
    count(*) FILTER (NOT is_known) AS unknown,
    count(*) FILTER (is_known AND NOT is_comparable) AS without_posts,
    (SELECT count(DISTINCT (date, campaign_id)) FROM compared) AS compared,
    (SELECT count(DISTINCT (date, campaign_id)) FROM compared WHERE differs) AS differing,
    coalesce((SELECT list(DISTINCT date ORDER BY date) FROM compared WHERE differs), []) AS differing_days,
    coalesce((SELECT list(sums) FROM sums), []) AS sums,
    coalesce((SELECT list(examples ORDER BY date, campaign_id, metric) FROM examples), []) AS examples
FROM campaign_days
