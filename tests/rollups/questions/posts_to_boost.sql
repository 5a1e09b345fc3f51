-- Posts to boost: young, not paid for, and strong among posts of their kind and age.
SELECT post_id, platform, age, organic_impressions_percentile, organic_engagement_rate_percentile
FROM posts
WHERE first_paid_day IS NULL AND age <= 14
    AND least(organic_impressions_percentile, organic_engagement_rate_percentile) >= 75
ORDER BY age, post_id
