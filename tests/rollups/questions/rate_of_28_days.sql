-- The organic engagement rate of all instances together in 28 days.
SELECT organic_engagement_rate AS rate FROM organic_paid_overall WHERE time_window = '28d' AND scope = 'all'
