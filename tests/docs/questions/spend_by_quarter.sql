-- What was spent in all, and by each brand, by quarter, on ads and creators?
WITH whole AS (SELECT date AS month FROM organic_paid_monthly GROUP BY date HAVING min(days) = any_value(days_expected))
SELECT instance_id, date_trunc('quarter', date)::DATE AS quarter, sum(ad_spend) AS ad_spend
FROM organic_paid_daily
WHERE date_trunc('month', date) IN (SELECT month FROM whole)
GROUP BY ALL ORDER BY ALL
