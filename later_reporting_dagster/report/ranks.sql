-- Creators of each instance, and of each campaign, whose posts of the last {{ maximum_age }} days are ranked {{ minimum_ranked_posts }} times or
-- more: each post stands by its engagement rate among its peers of the same network, type and age, and the creator where the middle
-- one of these posts does.
WITH recent AS (
    SELECT
        instance_id, campaign_ids, creator_id, content_cost,
        organic_engagement_rate_percentile AS percentile,
        CASE WHEN content_cost_per_engagement IS NOT NULL THEN content_cost END AS divided_cost,
        CASE WHEN content_cost_per_engagement IS NOT NULL THEN organic_engagements END AS dividing_engagements
    FROM posts
    WHERE is_published AND creator_id IS NOT NULL AND age < {{ maximum_age }}
),
labels AS (
    SELECT DISTINCT instance_id, creator_id, creator_full_name AS name, creator_handle_name AS handle, creator_profile_link AS link
    FROM organic_paid_by_creator
),
scoped AS (
    SELECT * EXCLUDE (campaign_ids), NULL AS campaign_id FROM recent
    UNION ALL BY NAME SELECT * EXCLUDE (campaign_ids), unnest(campaign_ids) AS campaign_id FROM recent
)
SELECT
    instance_id, campaign_id, creator_id,
    any_value(name) AS name, any_value(handle) AS handle, any_value(link) AS link,
    median(percentile) AS median_percentile,
    list_sort(list(percentile) FILTER (percentile IS NOT NULL)) AS percentiles,
    count(*) AS posts,
    count(content_cost) AS posts_of_known_cost,
    CAST(sum(CAST(content_cost AS DECIMAL(28, 6))) AS DOUBLE) AS content_cost,
    CASE WHEN count(*) = count(content_cost)
        THEN quotient(sum(CAST(divided_cost AS DECIMAL(28, 6))), sum(dividing_engagements))
    END AS content_cost_per_engagement
FROM scoped LEFT JOIN labels USING (instance_id, creator_id)
GROUP BY instance_id, campaign_id, creator_id
HAVING count(percentile) >= {{ minimum_ranked_posts }}
