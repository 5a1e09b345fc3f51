-- The creators to book again of each instance, and of each campaign: those with the highest rank.
WITH placed AS (
    SELECT row_number() OVER (ORDER BY median_percentile DESC, len(percentiles) DESC, instance_id, campaign_id, creator_id) AS place, *
    FROM ranks
)
FROM placed
QUALIFY row_number() OVER (PARTITION BY instance_id, campaign_id ORDER BY place) <= {{ most_booked }}
