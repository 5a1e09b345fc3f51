-- Platforms of an instance that reported impressions in the last 28 days and none in the last 7, if that is unlikely to be chance.
-- The share of posts without impressions is estimated by Laplace's rule, because all of a few posts may have some.
SELECT month.instance_id, month.platform, coalesce(recent.posts, 0) AS posts
FROM (FROM organic_paid_by_platform WHERE scope = 'instance' AND time_window = '28d') AS month
LEFT JOIN (FROM organic_paid_by_platform WHERE scope = 'instance' AND time_window = '7d') AS recent
    ON recent.instance_id = month.instance_id AND recent.platform IS NOT DISTINCT FROM month.platform
WHERE month.organic_impressions_posts > 0 AND coalesce(recent.organic_impressions_posts, 0) = 0
    AND pow((month.posts - month.organic_impressions_posts + 1) / (month.posts + 2), coalesce(recent.posts, 0)) < {{ unlikely }}
