-- Which days of the last 28 lack a file.
SELECT instance_id, days_expected - days AS missing
FROM organic_paid_overall WHERE time_window = '28d' AND scope = 'instance' AND days < days_expected
ORDER BY ALL
