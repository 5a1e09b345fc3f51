-- What the queries of the report read beside the tables of the lake.
--
--   newest           the newest day
--   windows          the days of each window and of the period before it
--   scope_days       how many of these days the lake has, of all instances (instance_id is null) and of each
--   published_sums   the posts that were published in each of these periods, and their cost as far as it is known by now
--   monthly_cost     what Later totals for the posts that were published in a month
--   account_totals   what Later totals for the instances in the numbers, and for all together, if it is the total of exactly these
--   later_totals     the same, and what it totals for campaigns, with the reason if it must not stand beside the lake's

CREATE OR REPLACE TABLE newest AS
SELECT max(last_day) AS newest_day
FROM (SELECT last_day FROM organic_paid_overall UNION ALL SELECT last_day FROM organic_paid_by_campaign);

CREATE OR REPLACE MACRO days_in_words(first_day, last_day) AS
    CASE
        WHEN first_day = last_day THEN strftime(last_day, '%-d %b %Y')
        WHEN year(first_day) = year(last_day) THEN strftime(first_day, '%-d %b') || ' – ' || strftime(last_day, '%-d %b %Y')
        ELSE strftime(first_day, '%-d %b %Y') || ' – ' || strftime(last_day, '%-d %b %Y')
    END;
-- A sum over what is known: null only if nothing is.
CREATE OR REPLACE MACRO plus(first, second) AS coalesce(first + second, first, second);

-- A lake may lack either of these tables.
CREATE OR REPLACE TABLE windows AS
WITH found AS (
    SELECT DISTINCT time_window, first_day, last_day, previous_first_day, previous_last_day
    FROM (FROM organic_paid_overall UNION ALL BY NAME FROM organic_paid_by_campaign)
)
SELECT time_window, false AS is_previous, first_day, last_day FROM found
UNION ALL SELECT time_window, true, previous_first_day, previous_last_day FROM found;

CREATE OR REPLACE TABLE scope_days AS
SELECT
    time_window, nullif(instance_id, '') AS instance_id, days, days_expected, previous_days,
    previous_last_day - previous_first_day + 1 AS previous_days_expected,
    newest_day - previous_first_day AS previous_first_age, newest_day - previous_last_day AS previous_last_age,
    -- Months differ in length, so that only their sums per day can be compared.
    CASE WHEN days = days_expected AND previous_days = previous_days_expected
        THEN CASE WHEN time_window = 'last_month' OR days_expected <> previous_days_expected THEN 'per_day' ELSE 'whole' END
    END AS comparison
FROM organic_paid_overall, newest;

-- A post of several campaigns is in each of them. Posts from before the lake are left out. The cost of young posts is not divided
-- by their results.
CREATE OR REPLACE TABLE published_sums AS
WITH published AS (
    SELECT
        time_window, is_previous, posts.instance_id, campaign_ids, platform, content_cost, organic_engagements,
        content_cost IS NOT NULL AND organic_engagements IS NOT NULL AND age >= {{ comparable_age }} AS is_comparable
    FROM posts JOIN windows ON CAST(post_date AS DATE) BETWEEN windows.first_day AND windows.last_day
    WHERE is_published
),
scoped AS (
    SELECT * EXCLUDE (campaign_ids), NULL AS campaign_id FROM published
    UNION ALL BY NAME SELECT * EXCLUDE (campaign_ids) REPLACE (NULL AS instance_id), NULL AS campaign_id FROM published
    UNION ALL BY NAME SELECT * EXCLUDE (campaign_ids), unnest(campaign_ids) AS campaign_id FROM published
)
SELECT
    time_window, is_previous, instance_id, campaign_id, grouping(platform) = 1 AS is_of_all_platforms, platform,
    count(*) AS published_posts,
    count(content_cost) AS posts_of_known_cost,
    sum(CAST(content_cost AS DECIMAL(28, 6))) AS content_cost,
    count(*) FILTER (is_comparable) AS content_cost_per_engagement_posts,
    quotient(
        sum(CAST(content_cost AS DECIMAL(28, 6))) FILTER (is_comparable), sum(organic_engagements) FILTER (is_comparable)
    ) AS content_cost_per_engagement
FROM scoped
GROUP BY GROUPING SETS (
    (time_window, is_previous, instance_id, campaign_id, platform), (time_window, is_previous, instance_id, campaign_id)
);

-- A post of several campaigns is in each of them. Null unless the month is fetched up to its end, or to the newest day.
CREATE OR REPLACE TABLE monthly_cost AS
SELECT
    month, instance_id, campaign_id,
    CAST(sum(CAST(published_content_cost AS DECIMAL(28, 6))) AS DOUBLE) AS content_cost_total,
    CAST(sum(published_posts) AS BIGINT) AS content_cost_total_posts
FROM campaigns_monthly, newest
WHERE instance_id IS NOT NULL AND published_until IS NOT NULL
GROUP BY GROUPING SETS ((month), (month, instance_id), (month, instance_id, campaign_id))
HAVING bool_and(published_until >= least(last_day(month), newest_day));

-- A total of all together is of the instances that it names. That of an only instance is the total of all.
CREATE OR REPLACE VIEW account_totals AS
WITH in_numbers AS (
    SELECT list(DISTINCT instance_id ORDER BY instance_id) AS names FROM organic_paid_overall WHERE scope = 'instance'
),
totals AS (FROM instance_performance_periods, in_numbers WHERE date_basis = 'performance_date')
SELECT * EXCLUDE (names) FROM totals
WHERE CASE WHEN scope = 'all' THEN instance_ids = names ELSE list_contains(names, instance_id) END
UNION ALL BY NAME
SELECT * EXCLUDE (names) REPLACE ('all' AS scope, '' AS instance_id) FROM totals WHERE [instance_id] = names;

CREATE OR REPLACE TABLE later_totals AS
WITH stated AS (
    SELECT *, false AS is_previous, api_content_cost AS content_cost FROM campaign_results WHERE instance_id IS NOT NULL
    UNION ALL BY NAME
    SELECT campaigns_monthly.*, time_window, is_previous, month AS first_day, recorded_until AS last_day
    FROM campaigns_monthly JOIN windows ON month = first_day
    WHERE time_window = 'last_month' AND is_previous AND instance_id IS NOT NULL
    UNION ALL BY NAME
    SELECT
        account_totals.*, time_window, is_previous, impressions AS organic_impressions, engagements AS organic_engagements,
        engagement_rate AS organic_engagement_rate, posts_count AS posts, paid_posts_count AS paid_posts,
        paid_ad_spend AS ad_spend, paid_return_on_ad_spend AS return_on_ad_spend, paid_cpe AS ad_spend_per_engagement,
        estimated_content_cost AS content_cost, cpe AS content_cost_per_engagement
    FROM account_totals
    JOIN windows ON period = CASE WHEN is_previous THEN 'previous_' ELSE '' END || time_window
        OR time_window IN ('this_month', 'last_month') AND period = 'recorded_month' AND account_totals.first_day = windows.first_day
)
SELECT
    stated.* REPLACE (nullif(stated.instance_id, '') AS instance_id),
    CASE
        WHEN stated.first_day <> windows.first_day OR stated.last_day <> windows.last_day
            THEN 'Later’s totals are of ' || days_in_words(stated.first_day, stated.last_day)
        WHEN is_previous AND previous_days < previous_days_expected OR NOT is_previous AND days < days_expected
            THEN 'Later’s totals cover ' || days_expected || ' days, and the lake has ' || days || ' of them'
        WHEN days IS NULL THEN 'the lake has no days of the instance'
    END AS withheld
FROM stated
JOIN windows USING (time_window, is_previous)
LEFT JOIN scope_days
    ON scope_days.time_window = stated.time_window AND scope_days.instance_id IS NOT DISTINCT FROM nullif(stated.instance_id, '');
