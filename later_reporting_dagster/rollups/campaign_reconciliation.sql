-- The totals of each campaign and day, as the API reports them (`…_of_campaign`) and as its posts add up (`…_of_posts`).
--
--   compared_columns    variable: columns of both tables that are compared
--   stored_files        relation of the files of post_metrics_daily
--
-- A day of a campaign can be compared (`is_comparable`) if each instance of the campaign has a file of posts of that day.
CREATE OR REPLACE TABLE campaign_totals AS
WITH instances AS (
    SELECT campaign_id, instance_id FROM campaigns
    UNION
    SELECT campaign_id, instance_id FROM post_metrics_daily
),
of_campaign AS (
    SELECT
        date, campaign_id
        {%- for name in compared_columns %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM campaign_performance_daily
    ANTI JOIN retired_campaigns USING (campaign_id)
    GROUP BY ALL
),
of_posts AS (
    SELECT
        date, campaign_id
        {%- for name in compared_columns %}, sum({{ name }}) AS {{ name }}{% endfor %}
    FROM post_metrics_daily
    GROUP BY ALL
),
files AS (
    SELECT
        date, campaign_id, count(instances.instance_id) AS instances, count(stored_files.instance_id) AS stored_instances
    FROM of_campaign
    LEFT JOIN instances USING (campaign_id)
    LEFT JOIN (FROM stored_files WHERE table_name = 'post_metrics_daily') AS stored_files USING (date, instance_id)
    GROUP BY ALL
)
SELECT
    date, campaign_id, instances > 0 AS is_known, is_known AND instances = stored_instances AS is_comparable
    {%- for name in compared_columns %},
    of_campaign.{{ name }} AS {{ name }}_of_campaign, of_posts.{{ name }} AS {{ name }}_of_posts
    {%- endfor %}
FROM files
JOIN of_campaign USING (date, campaign_id)
LEFT JOIN of_posts USING (date, campaign_id);

-- One row per value that both report, of the days that can be compared.
CREATE OR REPLACE TABLE compared_totals AS
{%- for name in compared_columns %}
SELECT
    date, campaign_id, '{{ name }}' AS metric, {{ name }}_of_campaign AS of_campaign, {{ name }}_of_posts AS of_posts,
    abs(of_campaign - of_posts) * 100 > {{ tolerance_percent }} * abs(of_posts) AS differs
FROM campaign_totals
WHERE is_comparable AND of_campaign IS NOT NULL AND of_posts IS NOT NULL
{{- " UNION ALL" if not loop.last }}
{%- endfor %};

-- Numbers of (day, campaign) pairs.
CREATE OR REPLACE VIEW campaign_counts AS
SELECT
    count(*) FILTER (NOT is_known) AS unknown,
    count(*) FILTER (is_known AND NOT is_comparable) AS without_posts,
    (SELECT count(DISTINCT (date, campaign_id)) FROM compared_totals) AS compared,
    (SELECT count(DISTINCT (date, campaign_id)) FROM compared_totals WHERE differs) AS differing
FROM campaign_totals;
