-- What do campaigns add up to, and what is that once?
WITH newest AS (SELECT max(last_day) - 90 AS before FROM organic_paid_overall)
SELECT
    (SELECT sum(organic_impressions) FROM organic_paid_daily_by_campaign, newest WHERE date > before) AS over_campaigns,
    (SELECT sum(organic_impressions) FROM organic_paid_daily, newest WHERE date > before) AS once,
    (SELECT sum(ad_spend) FROM organic_paid_daily, newest WHERE date > before) AS ad_spend_once
