-- All results of the report, from the relations of window_inputs.sql. The page does not compute results; it looks them up.
--
-- A scope is what the page's filters can select: all instances (0), one instance, or one campaign of one instance. Its
-- number is only used in this file: report_page.py numbers the scopes of the page differently. The results are the tables
-- `report_…`.
{%- import "measures.sql" as measures with context %}
{%- import "channel_comparison.sql" as comparison with context %}
{%- import "campaign_results.sql" as campaigns with context %}
{%- set maximum_creators = 100 %}
{%- set daily_columns = ("organic_impressions", "organic_engagements", "paid_impressions", "paid_engagements") %}

{#- Rows of a relation, repeated for each of their scopes. A post in several campaigns counts in each of them, and once in
    the scopes of instances. -#}
{%- macro in_scopes(rows) %}
SELECT 0 AS scope, * EXCLUDE (counted_per, instance_id, campaign_id) FROM {{ rows }} WHERE counted_per IN ('either', 'post')
UNION ALL
SELECT scope, {{ rows }}.* EXCLUDE (counted_per, instance_id, campaign_id)
FROM {{ rows }} JOIN scopes USING (instance_id)
WHERE scopes.campaign_id IS NULL AND counted_per IN ('either', 'post')
UNION ALL
SELECT scope, {{ rows }}.* EXCLUDE (counted_per, instance_id, campaign_id)
FROM {{ rows }} JOIN scopes USING (instance_id, campaign_id)
WHERE counted_per IN ('either', 'campaign')
{%- endmacro %}

CREATE OR REPLACE TABLE scopes AS
SELECT row_number() OVER (ORDER BY instance_id NULLS FIRST, campaign_id NULLS FIRST) - 1 AS scope, instance_id, campaign_id
FROM (
    SELECT NULL AS instance_id, NULL AS campaign_id
    UNION SELECT instance_id, NULL FROM stored_days
    UNION SELECT instance_id, campaign_id FROM post_groups WHERE counted_per <> 'post'
);

-- Integer ids for the parts of a scope: platforms, content types and creators. A creator id is unique only within an
-- instance.
CREATE OR REPLACE TABLE content_numbers AS
SELECT
    platform, content_type, dense_rank() OVER (ORDER BY platform) AS platform_number,
    row_number() OVER (ORDER BY platform, content_type) AS content
FROM (SELECT DISTINCT platform, content_type FROM post_groups);

CREATE OR REPLACE TABLE creator_numbers AS
SELECT instance_id, creator_id, row_number() OVER (ORDER BY instance_id, creator_id) AS creator
FROM (SELECT DISTINCT instance_id, creator_id FROM post_groups);

-- The groups and the posts of all ranges by performance date, with these ids instead of the names. `creator_id` has the
-- integer id of the creator, too, but is null for posts without a creator: channel_comparison needs that.
{%- set group_columns = measures.group_post_counts + measures.same_post_columns %}
{% for rows, kind, table, columns in (
    ("post_groups", "TABLE", "numbered_groups", group_columns), ("posts_in_windows", "VIEW", "numbered_posts", ("post_id",))
) %}
CREATE OR REPLACE {{ kind }} {{ table }} AS
SELECT
    range_id, is_previous, counted_per, {{ rows }}.instance_id, campaign_id, platform_number AS platform, content, creator,
    CASE WHEN {{ rows }}.creator_id IS NOT NULL THEN creator END AS creator_id,
    {%- if kind == "TABLE" %}{% for name in sum_columns if name in counted_columns %} {{ name }}_posts,{% endfor %}{% endif %}
    {{ (sum_columns if kind == "TABLE" else lift_columns) | join(", ") }}, {{ columns | join(", ") }}
FROM {{ rows }}
JOIN ranges USING (range_id)
JOIN content_numbers ON {{ measures.same(rows, "content_numbers", ("platform", "content_type")) }}
JOIN creator_numbers ON {{ measures.same(rows, "creator_numbers", ("instance_id", "creator_id")) }}
WHERE date_basis = 'performance_date';
{% endfor %}
-- The creators with the most impressions in each window and scope. Scope 0 (all instances) has none of its own: the page
-- merges the creators of all instances.
CREATE OR REPLACE TABLE shown_creators AS
SELECT range_id, scope, creator
FROM ({{ in_scopes("numbered_groups") }})
WHERE NOT is_previous AND scope > 0
GROUP BY range_id, scope, creator
QUALIFY row_number() OVER (
    PARTITION BY range_id, scope
    ORDER BY coalesce(sum(organic_impressions), 0) + coalesce(sum(paid_impressions), 0) DESC, creator
) <= {{ maximum_creators }};
-- The rows of numbered_groups and numbered_posts, repeated: once with kind `all`, and once for each platform, content type
-- and shown creator that they belong to.
{%- for rows in ("numbered_groups", "numbered_posts") %}
CREATE OR REPLACE VIEW {{ rows }}_by_part AS
WITH scoped AS ({{ in_scopes(rows) }})
SELECT 'all' AS kind, 0 AS member, * FROM scoped
UNION ALL
SELECT 'platform', platform, * FROM scoped WHERE NOT is_previous
UNION ALL
SELECT 'content', content, * FROM scoped WHERE NOT is_previous
UNION ALL
SELECT 'creator', creator, * FROM scoped SEMI JOIN shown_creators USING (range_id, scope, creator) WHERE NOT is_previous;
{% endfor %}
CREATE OR REPLACE TABLE part_groups AS
SELECT
    range_id, scope, kind, member, creator_id, platform,
    {{- measures.sums(sum_columns) }},
    {{- measures.post_counts(sum_columns, rows_are_posts=false) }}
    {%- for name in group_columns %}, sum({{ name }}) AS {{ name }}{% endfor %}
FROM numbered_groups_by_part
GROUP BY ALL;

-- The results of each scope in each range, in total (kind `all`) and by part (a `member` of the other kinds).
CREATE OR REPLACE TABLE results AS
WITH {{ comparison.channel_comparison(
    ("range_id", "scope", "kind", "member"), sum_columns, "part_groups", "numbered_posts_by_part"
) }}
SELECT
    *,
    coalesce(
        organic_impressions + paid_impressions, organic_impressions, paid_impressions
    ) AS impressions
FROM compared;

-- The results of each scope and window, of the previous period, and the change. There is a change only if, for each
-- instance, both periods have files of the same number of days (`has_equal_days`).
CREATE OR REPLACE TABLE report_kpis AS
WITH equal_days AS (
    SELECT scope, window_range_id AS range_id, bool_and(days[1] = days[2]) AS has_equal_days
    FROM scopes JOIN (
        SELECT window_range_id, instance_id, list(days ORDER BY is_previous) AS days
        FROM day_counts JOIN ranges USING (range_id)
        WHERE date_basis = 'performance_date'
        GROUP BY ALL
    ) AS counted ON scopes.instance_id IS NULL OR scopes.instance_id = counted.instance_id
    GROUP BY ALL
)
SELECT
    scopes.instance_id, scopes.campaign_id, windows."window", current.* EXCLUDE (range_id, scope, kind, member),
    has_equal_days
    {%- for name in compared_measures %},
    CASE WHEN previous_starts_in_stored_range THEN previous.{{ name }} END AS previous_{{ name }},
    {%- if name in differences %}
    CASE WHEN previous_starts_in_stored_range AND has_equal_days THEN round_significant(current.{{ name }} - previous.{{ name }}) END AS {{ name }}_change
    {%- else %}
    CASE WHEN previous_starts_in_stored_range AND has_equal_days THEN
        quotient(100 * (CAST(current.{{ name }} AS DOUBLE) - CAST(previous.{{ name }} AS DOUBLE)), previous.{{ name }})
    END AS {{ name }}_change
    {%- endif %}
    {%- endfor %}
FROM (
    SELECT
        ranges.*, previous.range_id AS previous_range_id,
        previous.first_day >= (SELECT min(date) FROM stored_days WHERE date_basis = 'performance_date')
            AS previous_starts_in_stored_range
    FROM ranges
    JOIN ranges AS previous ON previous.window_range_id = ranges.range_id AND previous.is_previous
    WHERE ranges.date_basis = 'performance_date' AND NOT ranges.is_previous
) AS windows
CROSS JOIN scopes
LEFT JOIN equal_days ON equal_days.range_id = windows.range_id AND equal_days.scope = scopes.scope
LEFT JOIN results AS current ON current.range_id = windows.range_id AND current.scope = scopes.scope AND current.kind = 'all'
LEFT JOIN results AS previous ON previous.range_id = previous_range_id AND previous.scope = scopes.scope AND previous.kind = 'all'
WHERE current.range_id IS NOT NULL OR previous.range_id IS NOT NULL;

-- Platforms (kind `platform`), and pairs of platform and content type (kind `content`).
CREATE OR REPLACE TABLE report_content AS
SELECT
    scopes.instance_id, scopes.campaign_id, "window", kind, contents.platform, contents.content_type,
    results.* EXCLUDE (range_id, scope, kind, member)
FROM results JOIN scopes USING (scope) JOIN ranges USING (range_id)
JOIN (
    SELECT 'content' AS kind, content AS member, platform, content_type FROM content_numbers
    UNION SELECT 'platform', platform_number, platform, NULL FROM content_numbers
) AS contents USING (kind, member);

CREATE OR REPLACE TABLE report_creators AS
SELECT
    scopes.instance_id, scopes.campaign_id, "window", member AS creator, results.* EXCLUDE (range_id, scope, kind, member)
FROM results JOIN scopes USING (scope) JOIN ranges USING (range_id)
WHERE kind = 'creator';

-- The spend on the posts published in each window. `both_…` are both channels together: null if one channel is.
CREATE OR REPLACE TABLE report_spend AS
WITH published_groups AS (
    FROM post_groups SEMI JOIN (FROM ranges WHERE date_basis = 'post_date' AND NOT is_previous) USING (range_id)
),
totals AS (
    SELECT
        range_id, scope, CAST(sum(posts) AS BIGINT) AS posts,
        {{- measures.sums(sum_columns + spend_columns) }},
        {{- measures.post_counts(sum_columns + spend_columns, rows_are_posts=false) }}
    FROM ({{ in_scopes("published_groups") }})
    GROUP BY ALL
)
SELECT
    scopes.instance_id, scopes.campaign_id, "window", * EXCLUDE (range_id, scope, instance_id, campaign_id, "window"),
    {%- for side in ("minimum", "maximum") %}
    organic_spend_{{ side }} + paid_spend_{{ side }} AS both_spend_{{ side }},
    {%- endfor %}
    coalesce(both_spend_maximum, organic_spend_maximum, paid_spend_maximum) AS known_spend_maximum,
    {%- for cost, measure in unit_costs %}
    organic_{{ cost }}_units + paid_{{ cost }}_units AS both_{{ cost }}_units,
    {%- for side in ("minimum", "maximum") %}
    blended_{{ cost }}_{{ side }} AS both_{{ cost }}_{{ side }}{{ "," if not loop.last }}
    {%- endfor %}{{ "," if not loop.last }}
    {%- endfor %}
FROM (SELECT *, {{ measures.costs() }} FROM totals) JOIN scopes USING (scope) JOIN ranges USING (range_id);

-- The windows of campaign totals are those of post_metrics_daily or, if it has no files, of posts_published.
CREATE OR REPLACE VIEW campaign_windows AS
FROM ranges
WHERE NOT is_previous AND date_basis = (
    SELECT date_basis FROM ranges ORDER BY date_basis = 'performance_date' DESC LIMIT 1
);

CREATE OR REPLACE TABLE campaign_totals AS
WITH {{ campaigns.campaign_results("campaign_windows") }}
SELECT "window", campaign_results.* FROM campaign_results JOIN campaign_windows USING (range_id);

CREATE OR REPLACE TABLE campaigns_of_one_instance AS
WITH posts AS (
    SELECT instance_id, campaign_id FROM recorded_by_campaign
    UNION SELECT instance_id, campaign_id FROM published_by_campaign
), {{ campaigns.campaign_instances("posts") }}
FROM campaign_instances;

-- The totals that Later reports for each campaign in each window, if the instance of the campaign is known.
CREATE OR REPLACE TABLE report_campaigns AS
SELECT instance_id, campaign_id, "window", {{ campaign_measures | join(", ") }}
FROM campaign_totals JOIN campaigns_of_one_instance USING (campaign_id);

-- The campaigns that have totals in each window, but belong to several instances, or to none that is known.
CREATE OR REPLACE TABLE report_unassigned_campaigns AS
SELECT "window", campaign_id FROM campaign_totals ANTI JOIN campaigns_of_one_instance USING (campaign_id);

-- How many days of each window have a file with campaign totals.
CREATE OR REPLACE TABLE report_campaign_days AS
WITH {{ campaigns.campaign_results("campaign_windows") }}
SELECT "window", days FROM campaign_range_days JOIN campaign_windows USING (range_id);

-- How many of the posts published in each window report each metric.
CREATE OR REPLACE TABLE report_coverage AS
WITH posts AS (
    SELECT CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counted_per, published.*
    FROM posts_published AS published LEFT JOIN multi_campaign_posts USING (instance_id, post_id)
),
counted AS (
    FROM posts
    UNION ALL BY NAME
    SELECT * REPLACE ('post' AS counted_per) FROM posts WHERE counted_per = 'campaign'
    QUALIFY row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) = 1
),
slices AS (
    SELECT
        slice, counted_per, instance_id, campaign_id, count(*) AS published
        {%- for column in metric_columns %}, count({{ column }}) AS {{ column }}{% endfor %}
    FROM counted JOIN calendar USING (date)
    WHERE date_basis = 'post_date'
    GROUP BY ALL
)
SELECT
    scopes.instance_id, scopes.campaign_id, "window"
    {%- for column in ("published",) + metric_columns %}, CAST(sum({{ column }}) AS BIGINT) AS {{ column }}{% endfor %}
FROM ({{ in_scopes("slices") }}) AS scoped
JOIN scopes USING (scope)
JOIN ranges ON date_basis = 'post_date' AND NOT is_previous AND slice <= oldest_slice
GROUP BY ALL;

-- The results of each scope on each day of the longest window.
CREATE OR REPLACE TABLE report_days AS
WITH posts AS (
    SELECT
        CASE WHEN multi_campaign_posts.post_id IS NULL THEN 'either' ELSE 'campaign' END AS counted_per,
        date, instance_id, campaign_id, post_id, {{ daily_columns | join(", ") }}, {{ lift_columns | join(", ") }}
    FROM post_metrics_daily_rows LEFT JOIN multi_campaign_posts USING (instance_id, post_id)
    WHERE date >= (SELECT min(first_day) FROM ranges WHERE date_basis = 'performance_date' AND NOT is_previous)
),
counted AS (
    FROM posts
    UNION ALL
    SELECT * REPLACE ('post' AS counted_per) FROM posts WHERE counted_per = 'campaign'
    QUALIFY row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) = 1
),
groups AS (
    SELECT date, counted_per, instance_id, campaign_id, {{- measures.sums(daily_columns + lift_columns) }}
    FROM counted
    GROUP BY ALL
),
totals AS (SELECT scope, date, {{- measures.sums(daily_columns + lift_columns) }} FROM ({{ in_scopes("groups") }}) GROUP BY ALL)
SELECT instance_id, campaign_id, date, {{ daily_columns | join(", ") }}
    {%- for channel, prefix in channels %},
    rate({{ channel }}_impressions_rate_engagements, {{ channel }}_impressions_rate_units) AS {{ channel }}_engagement_rate
    {%- endfor %}
FROM totals JOIN scopes USING (scope);

-- The name and profile of each shown creator, by content type: from the creator's newest published post or, if there is
-- none, from the newest row of post_metrics_daily.
CREATE OR REPLACE TABLE report_profiles AS
WITH shown AS (FROM creator_numbers SEMI JOIN shown_creators USING (creator)),
{%- macro newest_profiles(rows, creators) %}
SELECT
    creator, shown.instance_id, shown.creator_id, creator_content_type,
    max(struct_pack(
        day := date, name := coalesce(creator_full_name, ''), handle := coalesce(creator_handle_name, ''),
        link := coalesce(creator_profile_link, '')
    )) AS newest
FROM {{ creators }} AS shown JOIN {{ rows }} AS posts ON {{ measures.same("posts", "shown", ("instance_id", "creator_id")) }}
GROUP BY ALL
{%- endmacro %}
published AS ({{ newest_profiles("posts_published", "shown") }}),
unpublished AS (FROM shown ANTI JOIN published USING (creator))
FROM published UNION ALL ({{ newest_profiles("post_metrics_daily_files", "unpublished") }})
