-- Of each instance, day and metric: what Later totals for the account (`of_later`), and what its posts add up to, if each post
-- counts once (`once`: its row with the lowest campaign id, as in post_days), and if it counts once for each of its campaigns
-- (`by_campaign`). Posts whose value is null (`lacking`) count as nothing: Later can only add up what it has.
--
--   compared_columns   variable: columns of both tables that are compared
--   stored_files       relation of the files of both tables
--   requests           relation: when each file was last requested
--
-- A day is compared if it was over for some days, and if both files were requested within a day: networks restate results. A
-- metric that Later does not state is not. Later omits days without results.
WITH compared_days AS (
    SELECT date, instance_id
    FROM (FROM requests WHERE table_name = 'post_metrics_daily') AS posts
    JOIN (FROM requests WHERE table_name = 'instance_performance_daily') AS accounts USING (date, instance_id)
    SEMI JOIN (FROM stored_files WHERE table_name = 'post_metrics_daily') AS post_files USING (date, instance_id)
    SEMI JOIN (FROM stored_files WHERE table_name = 'instance_performance_daily') AS account_files USING (date, instance_id)
    WHERE date <= DATE '{{ last_day }}'
        AND abs(epoch(posts.requested_at) - epoch(accounts.requested_at)) <= {{ seconds_between_requests }}
),
each_post AS (
    SELECT
        date, instance_id, post_id
        {%- for name in compared_columns %},
        arg_min_null({{ name }}, campaign_id) AS {{ name }}, sum({{ name }}) AS {{ name }}_by_campaign
        {%- endfor %}
    FROM post_metrics_daily
    GROUP BY ALL
),
of_posts AS (
    SELECT
        date, instance_id
        {%- for name in compared_columns %},
        sum({{ name }}) AS {{ name }}, sum({{ name }}_by_campaign) AS {{ name }}_by_campaign,
        count(*) - count({{ name }}) AS {{ name }}_lacking
        {%- endfor %}
    FROM each_post
    GROUP BY ALL
),
-- Materialized, because there is a row for each metric: otherwise all files are opened for each.
totals AS MATERIALIZED (
    SELECT
        date, instance_id, accounts.instance_id IS NULL AS is_omitted
        {%- for name in compared_columns %},
        accounts.{{ name }} AS {{ name }}_of_later, of_posts.{{ name }}, {{ name }}_by_campaign, {{ name }}_lacking
        {%- endfor %}
    FROM compared_days
    LEFT JOIN instance_performance_daily AS accounts USING (date, instance_id)
    LEFT JOIN of_posts USING (date, instance_id)
),
compared AS (
    {%- for name in compared_columns %}
    SELECT
        date, instance_id, '{{ name }}' AS metric, coalesce({{ name }}_of_later, 0) AS of_later,
        coalesce({{ name }}, 0) AS once, coalesce({{ name }}_by_campaign, 0) AS by_campaign,
        coalesce({{ name }}_lacking, 0) AS lacking
    FROM totals
    WHERE {{ name }}_of_later IS NOT NULL OR is_omitted
    {{- " UNION ALL" if not loop.last }}
    {%- endfor %}
),
-- The days, and the last days together, whose first and last day are those of the period.
periods AS (
    SELECT date AS first_day, date AS last_day, instance_id, metric, of_later, once, by_campaign, lacking,
        greatest({{ day_percent }} / 100 * abs(of_later), {{ day_minimum }}) AS tolerance
    FROM compared
    UNION ALL
    SELECT min(date), max(date), instance_id, metric, sum(of_later), sum(once), sum(by_campaign), sum(lacking),
        {{ together_percent }} / 100 * abs(sum(of_later))
    FROM compared
    WHERE date > DATE '{{ last_day }}' - {{ days_together }}
    GROUP BY instance_id, metric
    HAVING count(*) > 1
),
differences AS (FROM periods WHERE abs(of_later - once) > tolerance)
SELECT
    (SELECT count(DISTINCT (date, instance_id)) FROM compared) AS compared,
    coalesce((SELECT list(differences ORDER BY first_day, last_day, instance_id, metric) FROM differences), []) AS differing,
    NOT EXISTS (FROM periods WHERE abs(of_later - by_campaign) > tolerance) AS agrees_by_campaign
