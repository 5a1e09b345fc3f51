-- What do 1,000 paid impressions cost (CPM), by network and month?
SELECT date_trunc('month', date)::DATE AS month, platform,
    1000 * sum(ad_spend_with_paid_impressions) / sum(paid_impressions_with_ad_spend) AS paid_cpm
FROM organic_paid_daily
GROUP BY ALL HAVING paid_cpm IS NOT NULL ORDER BY ALL
