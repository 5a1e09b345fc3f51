-- The figures of the report, from what the tables of windows are made from. A *scope* is what its filters can choose:
-- all instances (0), one instance, or one campaign of one instance. Only here a figure is computed: the page looks up.
{%- import "measures.sql" as measures with context %}
{%- import "comparison.sql" as comparison with context %}
{%- set most_creators = 100 %}
{%- set results = ("organic_impressions", "organic_engagements", "paid_impressions", "paid_engagements") %}

{#- Rows in each scope that they count in: in a campaign a post counts whatever its others are, elsewhere once. -#}
{%- macro in_scopes(rows) %}
SELECT 0 AS scope, * EXCLUDE (counts_for, instance_id, campaign_id) FROM {{ rows }} WHERE counts_for IN ('both', 'post')
UNION ALL
SELECT scope, {{ rows }}.* EXCLUDE (counts_for, instance_id, campaign_id)
FROM {{ rows }} JOIN scopes USING (instance_id)
WHERE scopes.campaign_id IS NULL AND counts_for IN ('both', 'post')
UNION ALL
SELECT scope, {{ rows }}.* EXCLUDE (counts_for, instance_id, campaign_id)
FROM {{ rows }} JOIN scopes USING (instance_id, campaign_id)
WHERE counts_for IN ('both', 'campaign')
{%- endmacro %}

CREATE OR REPLACE TABLE scopes AS
SELECT row_number() OVER (ORDER BY instance_id NULLS FIRST, campaign_id NULLS FIRST) - 1 AS scope, instance_id, campaign_id
FROM (
    SELECT NULL AS instance_id, NULL AS campaign_id
    UNION SELECT instance_id, NULL FROM landed
    UNION SELECT instance_id, campaign_id FROM cells WHERE counts_for <> 'post'
);

-- Numbers for what a scope is divided into. Creator 7 of one instance is not creator 7 of another.
CREATE OR REPLACE TABLE contents AS
SELECT
    platform, content_type, dense_rank() OVER (ORDER BY platform) AS platform_number,
    row_number() OVER (ORDER BY platform, content_type) AS content
FROM (SELECT DISTINCT platform, content_type FROM cells);

CREATE OR REPLACE TABLE makers AS
SELECT instance_id, creator_id, row_number() OVER (ORDER BY instance_id, creator_id) AS creator
FROM (SELECT DISTINCT instance_id, creator_id FROM cells);
{%- set counted = measures.counts + ("same_post_paid", "same_post_organic") %}
{% for rows, kind, table, columns in (
    ("cells", "TABLE", "recorded_cells", counted), ("posts_in_windows", "VIEW", "recorded_posts", ("post_id",))
) %}
CREATE OR REPLACE {{ kind }} {{ table }} AS
SELECT
    span, is_previous, counts_for, {{ rows }}.instance_id, campaign_id, platform_number AS platform, content, creator,
    CASE WHEN {{ rows }}.creator_id IS NOT NULL THEN creator END AS creator_id,
    {%- if kind == "TABLE" %}{% for name in names if name in covered %} {{ name }}_posts,{% endfor %}{% endif %}
    {{ (names if kind == "TABLE" else parts) | join(", ") }}, {{ columns | join(", ") }}
FROM {{ rows }}
JOIN spans USING (span)
JOIN contents ON {{ measures.same(rows, "contents", ("platform", "content_type")) }}
JOIN makers ON {{ measures.same(rows, "makers", ("instance_id", "creator_id")) }}
WHERE date_basis = 'performance_date';
{% endfor %}
CREATE OR REPLACE TABLE creators_shown AS
SELECT span, scope, creator
FROM ({{ in_scopes("recorded_cells") }})
WHERE NOT is_previous AND scope > 0
GROUP BY span, scope, creator
QUALIFY row_number() OVER (
    PARTITION BY span, scope
    ORDER BY coalesce(sum(organic_impressions), 0) + coalesce(sum(paid_impressions), 0) DESC, creator
) <= {{ most_creators }};
{% for rows in ("recorded_cells", "recorded_posts") %}
CREATE OR REPLACE VIEW divided_{{ rows }} AS
WITH scoped AS ({{ in_scopes(rows) }})
SELECT 'all' AS kind, 0 AS member, * FROM scoped
UNION ALL
SELECT 'platform', platform, * FROM scoped WHERE NOT is_previous
UNION ALL
SELECT 'content', content, * FROM scoped WHERE NOT is_previous
UNION ALL
SELECT 'creator', creator, * FROM scoped SEMI JOIN creators_shown USING (span, scope, creator) WHERE NOT is_previous;
{% endfor %}
CREATE OR REPLACE TABLE scope_cells AS
SELECT
    span, scope, kind, member, creator_id, platform,
    {{- measures.sums(names) }},
    {{- measures.coverage(names, counted=false) }}
    {%- for name in counted %}, sum({{ name }}) AS {{ name }}{% endfor %}
FROM divided_recorded_cells
GROUP BY ALL;

CREATE OR REPLACE TABLE figures AS
WITH {{ comparison.comparison(("span", "scope", "kind", "member"), names, "scope_cells", "divided_recorded_posts") }}
SELECT
    *,
    coalesce(
        whole(CAST(organic_impressions AS HUGEINT) + paid_impressions, 'impressions'), organic_impressions, paid_impressions
    ) AS impressions
FROM compared;

-- What a scope earned in a period, the period before it, and the change where both have as many days of each instance.
CREATE OR REPLACE TABLE report_headline AS
WITH days_alike AS (
    SELECT scope, span_of_window AS span, bool_and(days[1] = days[2]) AS are_alike
    FROM scopes JOIN (
        SELECT span_of_window, instance_id, list(days ORDER BY is_previous) AS days
        FROM days_there JOIN spans USING (span)
        WHERE date_basis = 'performance_date'
        GROUP BY ALL
    ) AS there ON scopes.instance_id IS NULL OR scopes.instance_id = there.instance_id
    GROUP BY ALL
)
SELECT
    scopes.instance_id, scopes.campaign_id, periods."window", now.* EXCLUDE (span, scope, kind, member), are_alike
    {%- for name in measures_compared %},
    CASE WHEN is_covered THEN before.{{ name }} END AS previous_{{ name }},
    {%- if name in differences %}
    CASE WHEN is_covered AND are_alike THEN significant(now.{{ name }} - before.{{ name }}) END AS {{ name }}_change
    {%- else %}
    CASE WHEN is_covered AND are_alike THEN
        quotient(100 * (CAST(now.{{ name }} AS DOUBLE) - CAST(before.{{ name }} AS DOUBLE)), before.{{ name }})
    END AS {{ name }}_change
    {%- endif %}
    {%- endfor %}
FROM (
    SELECT
        spans.*, before.span AS span_before,
        before.first_day >= (SELECT min(date) FROM landed) AS is_covered
    FROM spans
    JOIN spans AS before ON before.span_of_window = spans.span AND before.is_previous
    WHERE spans.date_basis = 'performance_date' AND NOT spans.is_previous
) AS periods
CROSS JOIN scopes
LEFT JOIN days_alike ON days_alike.span = periods.span AND days_alike.scope = scopes.scope
LEFT JOIN figures AS now ON now.span = periods.span AND now.scope = scopes.scope AND now.kind = 'all'
LEFT JOIN figures AS before ON before.span = span_before AND before.scope = scopes.scope AND before.kind = 'all'
WHERE now.span IS NOT NULL OR before.span IS NOT NULL;

CREATE OR REPLACE TABLE report_content AS
SELECT
    scopes.instance_id, scopes.campaign_id, "window", kind, contents.platform, contents.content_type,
    figures.* EXCLUDE (span, scope, kind, member)
FROM figures JOIN scopes USING (scope) JOIN spans USING (span)
JOIN (
    SELECT 'content' AS kind, content AS member, platform, content_type FROM contents
    UNION SELECT 'platform', platform_number, platform, NULL FROM contents
) AS contents USING (kind, member);

CREATE OR REPLACE TABLE report_creators AS
SELECT
    scopes.instance_id, scopes.campaign_id, "window", member AS creator, figures.* EXCLUDE (span, scope, kind, member)
FROM figures JOIN scopes USING (scope) JOIN spans USING (span)
WHERE kind = 'creator';

-- What was spent on the posts published in a period. `both_…` are both channels together: null when one is.
CREATE OR REPLACE TABLE report_spend AS
WITH published AS (FROM cells SEMI JOIN (FROM spans WHERE date_basis = 'post_date' AND NOT is_previous) USING (span)),
totals AS (
    SELECT
        span, scope, CAST(sum(posts) AS BIGINT) AS posts,
        {{- measures.sums(names + spend_names) }},
        {{- measures.coverage(names + spend_names, counted=false) }}
    FROM ({{ in_scopes("published") }})
    GROUP BY ALL
)
SELECT
    scopes.instance_id, scopes.campaign_id, "window", * EXCLUDE (span, scope, instance_id, campaign_id, "window"),
    {%- for side in ("minimum", "maximum") %}
    organic_spend_{{ side }} + paid_spend_{{ side }} AS both_spend_{{ side }},
    {%- endfor %}
    coalesce(both_spend_maximum, organic_spend_maximum, paid_spend_maximum) AS known_spend_maximum,
    {%- for cost, measure in unit_costs %}
    whole(CAST(organic_{{ cost }}_units AS HUGEINT) + paid_{{ cost }}_units, '{{ measure }}') AS both_{{ cost }}_units,
    {%- for side in ("minimum", "maximum") %}
    blended_{{ cost }}_{{ side }} AS both_{{ cost }}_{{ side }}{{ "," if not loop.last }}
    {%- endfor %}{{ "," if not loop.last }}
    {%- endfor %}
FROM (SELECT *, {{ measures.costs() }} FROM totals) JOIN scopes USING (scope) JOIN spans USING (span);

-- How many posts published in a period report each metric.
CREATE OR REPLACE TABLE report_coverage AS
WITH posts AS (
    SELECT CASE WHEN shared_posts.post_id IS NULL THEN 'both' ELSE 'campaign' END AS counts_for, published.*
    FROM posts_published AS published LEFT JOIN shared_posts USING (instance_id, post_id)
),
counted AS (
    FROM posts
    UNION ALL BY NAME
    SELECT * REPLACE ('post' AS counts_for) FROM posts WHERE counts_for = 'campaign'
    QUALIFY row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) = 1
),
slices AS (
    SELECT
        slice, counts_for, instance_id, campaign_id, count(*) AS published
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
JOIN spans ON date_basis = 'post_date' AND NOT is_previous AND scoped.slice <= spans.slice
GROUP BY ALL;

-- What each day of the longest period earned.
CREATE OR REPLACE TABLE report_days AS
WITH posts AS (
    SELECT
        CASE WHEN shared_posts.post_id IS NULL THEN 'both' ELSE 'campaign' END AS counts_for,
        date, instance_id, campaign_id, post_id, {{ results | join(", ") }}, {{ parts | join(", ") }}
    FROM post_metrics_daily_rows LEFT JOIN shared_posts USING (instance_id, post_id)
    WHERE date >= (SELECT min(first_day) FROM spans WHERE date_basis = 'performance_date' AND NOT is_previous)
),
counted AS (
    FROM posts
    UNION ALL
    SELECT * REPLACE ('post' AS counts_for) FROM posts WHERE counts_for = 'campaign'
    QUALIFY row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) = 1
),
groups AS (
    SELECT date, counts_for, instance_id, campaign_id, {{- measures.sums(results + parts) }}
    FROM counted
    GROUP BY ALL
),
totals AS (SELECT scope, date, {{- measures.sums(results + parts) }} FROM ({{ in_scopes("groups") }}) GROUP BY ALL)
SELECT instance_id, campaign_id, date, {{ results | join(", ") }}
    {%- for channel, prefix in channels %},
    rate({{ channel }}_impressions_rate_engagements, {{ channel }}_impressions_rate_units) AS {{ channel }}_engagement_rate
    {%- endfor %}
FROM totals JOIN scopes USING (scope);

-- What the newest post says of each creator shown and kind of profile; of one without a published post, the newest day.
CREATE OR REPLACE TABLE report_profiles AS
WITH shown AS (FROM makers SEMI JOIN creators_shown USING (creator)),
{%- macro newest(rows, of) %}
SELECT
    creator, shown.instance_id, shown.creator_id, creator_content_type,
    max(struct_pack(
        day := date, name := coalesce(creator_full_name, ''), handle := coalesce(creator_handle_name, ''),
        link := coalesce(creator_profile_link, '')
    )) AS newest
FROM {{ of }} AS shown JOIN {{ rows }} AS posts ON {{ measures.same("posts", "shown", ("instance_id", "creator_id")) }}
GROUP BY ALL
{%- endmacro %}
published AS ({{ newest("posts_published", "shown") }}),
unpublished AS (FROM shown ANTI JOIN published USING (creator))
FROM published UNION ALL ({{ newest("post_metrics_daily_files", "unpublished") }})
