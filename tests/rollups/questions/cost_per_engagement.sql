-- Cost per engagement to date, organic and paid: both parts of the posts that have both.
SELECT
    sum(content_cost) FILTER (organic_engagements IS NOT NULL) / sum(organic_engagements) FILTER (content_cost IS NOT NULL) AS organic,
    sum(ad_spend) FILTER (paid_engagements IS NOT NULL) / sum(paid_engagements) FILTER (ad_spend IS NOT NULL) AS paid
FROM posts
