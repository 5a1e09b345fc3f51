-- Networks of an instance whose posts report no impressions: in the window, or, by the rule of a check, no more.
SELECT time_window, instance_id, platform, posts, 'no_impressions' AS kind
FROM organic_paid_by_platform
WHERE scope = 'instance' AND organic_impressions_posts = 0
UNION ALL
SELECT time_window, instance_id, silent.platform, silent.posts, 'stopped' AS kind
FROM silent_platforms AS silent
JOIN organic_paid_by_platform AS platforms USING (instance_id)
JOIN newest ON last_day = newest_day
WHERE scope = 'instance' AND platforms.platform IS NOT DISTINCT FROM silent.platform AND organic_impressions_posts > 0
