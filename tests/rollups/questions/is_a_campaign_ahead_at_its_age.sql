-- Which share of its expected result of day 28 a post of each campaign has, by the usual share at its age.
SELECT campaign_id, count(*) AS posts,
    avg(organic_impressions / organic_impressions_share_p50 * 100) AS expected_impressions_of_day_28
FROM (SELECT *, unnest(campaign_ids) AS campaign_id FROM posts) JOIN organic_by_age USING (platform, content_type, age)
GROUP BY ALL ORDER BY ALL
