{#- All windows of a grain, each with the previous period and the change. Expands to a list of common table expressions. The
    last one, `changes`, is the result. Needs the relations of window_inputs.sql. -#}
{%- import "measures.sql" as measures with context -%}
{%- import "channel_comparison.sql" as comparison with context -%}

{#- grain        columns that identify a group
    counted_per  `campaign`: a post counts in each of its campaigns; `post`: it counts once -#}
{%- macro windows_with_changes(grain, counted_per) -%}
{%- set by = ("range_id",) + grain -%}
counted_groups AS (FROM post_groups WHERE counted_per IN ('either', '{{ counted_per }}')),
counted_posts AS (FROM posts_in_windows WHERE counted_per IN ('either', '{{ counted_per }}')),
{{ comparison.channel_comparison(by, sum_columns + spend_columns, "counted_groups", "counted_posts") }},
{%- if counted_per == "post" %}
-- For each group, the sum over its posts of (campaigns of the post - 1).
further_campaigns AS (
    SELECT {{ by | join(", ") }}, CAST(sum(campaigns - 1) AS BIGINT) AS campaigns
    FROM posts_in_windows
    JOIN (
        SELECT range_id, instance_id, post_id, count(*) AS campaigns
        FROM posts_in_windows WHERE counted_per = 'campaign' GROUP BY ALL
    ) AS campaigns_by_post USING (range_id, instance_id, post_id)
    WHERE counted_per = 'post'
    GROUP BY {{ by | join(", ") }}
),
{%- endif %}
with_costs AS (
    SELECT
        compared.*, ranges.is_previous, window_range_id, {{ measures.costs() }}
        {%- if counted_per == "post" %}, posts + coalesce(further_campaigns.campaigns, 0) AS post_campaigns{% endif %}
    FROM compared
    JOIN ranges USING (range_id)
    {% if counted_per == "post" %}LEFT JOIN further_campaigns ON {{ measures.same("compared", "further_campaigns", by) }}{% endif %}
),
-- Groups with posts in a window or in its previous period.
groups AS (SELECT DISTINCT window_range_id, {{ grain | join(", ") }} FROM with_costs),
current_and_previous AS (
    SELECT
        ranges.range_id, ranges.date_basis, ranges."window", ranges.first_day, ranges.last_day,
        {%- for name in grain %} groups.{{ name }},{% endfor %}
        current_days.days, date_diff('day', ranges.first_day, ranges.last_day) + 1 AS days_expected,
        previous_days.days AS previous_days
        {%- for column in measure_columns %},
        {% if column.is_post_count %}CASE WHEN current_days.days > 0{{ " AND ranges.date_basis = 'post_date'" if column.is_cost }} THEN coalesce(current.{{ column.name }}, 0) END{% else %}current.{{ column.name }}{% endif %} AS {{ column.name }}
        {%- endfor %}
        {%- for column in measure_columns if column.has_previous %},
        CASE WHEN previous_days.is_available THEN {% if column.is_post_count %}coalesce(previous.{{ column.name }}, 0){% else %}previous.{{ column.name }}{% endif %} END AS previous_{{ column.name }}
        {%- endfor %}
    FROM groups
    JOIN ranges ON ranges.range_id = groups.window_range_id
    LEFT JOIN ranges AS previous_ranges
        ON previous_ranges.window_range_id = ranges.range_id AND previous_ranges.is_previous
    JOIN day_counts AS current_days
        ON current_days.range_id = ranges.range_id AND current_days.instance_id = groups.instance_id
    LEFT JOIN day_counts AS previous_days
        ON previous_days.range_id = previous_ranges.range_id AND previous_days.instance_id = groups.instance_id
    LEFT JOIN with_costs AS current
        ON current.range_id = ranges.range_id AND {{ measures.same("current", "groups", grain) }}
    LEFT JOIN with_costs AS previous
        ON previous.range_id = previous_ranges.range_id AND {{ measures.same("previous", "groups", grain) }}
),
-- A change is shown only if both periods have files of the same number of days.
changes AS (
    SELECT
        *
        {%- for column in measure_columns if column.has_change %},
        CASE WHEN days = previous_days THEN
            {% if column.is_difference %}round_significant({{ column.name }} - previous_{{ column.name }})
            {%- else %}quotient(100.0 * (CAST({{ column.name }} AS DOUBLE) - previous_{{ column.name }}), previous_{{ column.name }}){% endif %}
        END AS {{ column.name }}_change
        {%- endfor %}
    FROM current_and_previous
)
{%- endmacro -%}
