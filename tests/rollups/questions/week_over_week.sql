-- This week against the last one; null unless all days of both are there.
SELECT organic_impressions, previous_organic_impressions, ad_spend, previous_ad_spend
FROM organic_paid_overall WHERE time_window = '7d' AND scope = 'all'
