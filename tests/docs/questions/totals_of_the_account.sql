-- What did the account spend and return, as Later itself totals it?
SELECT first_day, last_day, organic_impressions AS impressions, paid_impressions
FROM organic_paid_overall WHERE time_window = '90d' AND scope = 'all'
