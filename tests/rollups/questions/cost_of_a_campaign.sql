-- What campaigns cost: content of the posts published in each month, ad spend of its days.
SELECT campaign_id, sum(content_cost) AS content_cost, sum(ad_spend) AS ad_spend, sum(posts_without_cost) AS posts_without_cost
FROM campaign_costs_monthly
GROUP BY ALL ORDER BY ALL
