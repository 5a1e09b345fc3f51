-- The creators of each instance with the most impressions, and those with the highest ranks.
{%- set most_seen = "plus(organic_impressions, paid_impressions) DESC NULLS LAST" %}
SELECT
    rank() OVER (ORDER BY {{ most_seen }}) AS place,
    time_window, instance_id, creator_id, creator_handle_name AS handle, creator_full_name AS name, creator_profile_link AS link,
    posts, organic_impressions, paid_impressions, organic_engagement_rate, paid_engagement_rate, median_percentile
FROM organic_paid_by_creator
LEFT JOIN (SELECT instance_id, creator_id, median_percentile FROM ranks WHERE campaign_id IS NULL) AS ranks
    USING (instance_id, creator_id)
QUALIFY row_number() OVER (PARTITION BY time_window, instance_id ORDER BY {{ most_seen }}, creator_id) <= {{ most_creators }}
    OR median_percentile IS NOT NULL AND row_number() OVER (
        PARTITION BY time_window, instance_id ORDER BY median_percentile DESC NULLS LAST, creator_id
    ) <= {{ most_creators }}
