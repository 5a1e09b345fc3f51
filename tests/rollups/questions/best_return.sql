-- Which campaigns return the most per ad spend.
SELECT campaign_id, ad_spend, return_on_ad_spend
FROM campaign_results
WHERE time_window = '90d' AND ad_spend > 0
ORDER BY return_on_ad_spend DESC NULLS LAST, campaign_id LIMIT 5
