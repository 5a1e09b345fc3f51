-- What does a paid engagement cost?
SELECT sum(ad_spend_with_paid_engagements) / sum(paid_engagements_with_ad_spend) AS ad_spend_per_engagement
FROM organic_paid_daily
WHERE date > (SELECT max(last_day) - 90 FROM organic_paid_overall)
