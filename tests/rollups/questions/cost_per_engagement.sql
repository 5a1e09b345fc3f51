-- Cost per engagement: organic, paid and blended, of the posts whose costs are both known.
SELECT
    sum(content_cost) / sum(organic_engagements) AS organic,
    sum(ad_spend) / sum(paid_engagements) AS paid,
    (sum(content_cost) + sum(ad_spend)) / (sum(organic_engagements) + sum(paid_engagements)) AS blended
FROM posts
WHERE content_cost IS NOT NULL AND ad_spend IS NOT NULL
