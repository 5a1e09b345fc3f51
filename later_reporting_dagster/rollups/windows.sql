{#- The rows of window tables. Each macro expands to a list of common table expressions; the last one, `windows`, is the
    result. They need the relations of window_ranges.sql and window_inputs.sql. -#}
{%- import "measures.sql" as measures with context -%}
{%- import "channel_comparison.sql" as channels with context -%}

{#- Comparison of the channels over all windows, each with the previous period.

    groups, posts  relations like post_groups and posts_in_windows; without posts, the lifts have no intervals
    counted_per    `campaign`: a post counts in each of its campaigns; `post`: it counts once; none: all rows count -#}
{%- macro comparison(groups, posts=none, counted_per=none) -%}
{%- set by = ("range_id",) + grain -%}
{%- if counted_per %}
counted_groups AS (FROM {{ groups }} WHERE counted_per IN ('either', '{{ counted_per }}')),
{%- set groups = "counted_groups" %}
{%- if posts %}
counted_posts AS (FROM {{ posts }} WHERE counted_per IN ('either', '{{ counted_per }}')),
{%- set posts = "counted_posts" %}
{%- endif %}
{%- endif %}
{% if posts %}{{ channels.channel_comparison(by, groups, posts) }}{% else %}{{ channels.channel_comparison_without_intervals(by, groups) }}{% endif %},
-- Groups with posts in a window or in its previous period.
groups_of_windows AS (
    SELECT DISTINCT window_range_id AS range_id, {{ grain | join(", ") }} FROM compared JOIN ranges USING (range_id)
),
windows AS (
    SELECT
        ranges.range_id, ranges.time_window, ranges.first_day, ranges.last_day,
        {%- for name in grain %} groups.{{ name }},{% endfor %}
        current_days.days, current_days.days_expected, previous_days.days AS previous_days
        {%- for name in measured %},
        {% if name in post_counts %}CASE WHEN current_days.days > 0 THEN coalesce(current.{{ name }}, 0) END{% else %}current.{{ name }}{% endif %} AS {{ name }}
        {%- endfor %}
        {%- for name in previous %},
        {% if name in post_counts %}CASE WHEN previous_days.days > 0 THEN coalesce(previous.{{ name }}, 0) END{% else %}previous.{{ name }}{% endif %} AS previous_{{ name }}
        {%- endfor %}
    FROM groups_of_windows AS groups
    JOIN ranges USING (range_id)
    LEFT JOIN ranges AS previous_ranges ON previous_ranges.window_range_id = ranges.range_id AND previous_ranges.is_previous
    JOIN day_counts AS current_days
        ON current_days.range_id = ranges.range_id AND {{ measures.same("current_days", "groups", ("instance_id",)) }}
    LEFT JOIN day_counts AS previous_days
        ON previous_days.range_id = previous_ranges.range_id AND {{ measures.same("previous_days", "groups", ("instance_id",)) }}
    LEFT JOIN compared AS current
        ON current.range_id = ranges.range_id AND {{ measures.same("current", "groups", grain) }}
    LEFT JOIN compared AS previous
        ON previous.range_id = previous_ranges.range_id AND {{ measures.same("previous", "groups", grain) }}
)
{%- endmacro -%}

{#- Costs over all windows. `sums` is a relation of sums of `cost_columns` by range_id and the grain. -#}
{%- macro costs(sums) -%}
windows AS (
    SELECT sums.*, time_window, first_day, last_day, days, days_expected, {{ measures.costs() }}
    FROM {{ sums }} AS sums
    JOIN ranges USING (range_id)
    JOIN day_counts ON day_counts.range_id = sums.range_id AND {{ measures.same("day_counts", "sums", ("instance_id",)) }}
)
{%- endmacro -%}
