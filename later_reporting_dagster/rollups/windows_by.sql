{#- A table of all windows by a grain: each with the period before it and the change. -#}
{%- import "measures.sql" as measures with context -%}
{%- import "comparison.sql" as comparison with context -%}

{#- `counts_for` is `campaign` where a post counts in each of its campaigns, `post` where it counts once. -#}
{%- macro windows_by(grain, counts_for) -%}
{%- set by = ("span",) + grain -%}
counted_cells AS (FROM cells WHERE counts_for IN ('both', '{{ counts_for }}')),
counted_posts AS (FROM posts_in_windows WHERE counts_for IN ('both', '{{ counts_for }}')),
{{ comparison.comparison(by, names + spend_names, "counted_cells", "counted_posts") }},
{%- if counts_for == "post" %}
-- How many campaigns the posts of several have beyond one each.
further_campaigns AS (
    SELECT {{ by | join(", ") }}, CAST(sum(campaigns - 1) AS BIGINT) AS campaigns
    FROM posts_in_windows
    JOIN (
        SELECT span, instance_id, post_id, count(*) AS campaigns
        FROM posts_in_windows WHERE counts_for = 'campaign' GROUP BY ALL
    ) AS of_posts USING (span, instance_id, post_id)
    WHERE counts_for = 'post'
    GROUP BY {{ by | join(", ") }}
),
{%- endif %}
costed AS (
    SELECT
        compared.*, spans.is_previous, span_of_window, {{ measures.costs() }}
        {%- if counts_for == "post" %}, posts + coalesce(further_campaigns.campaigns, 0) AS post_campaigns{% endif %}
    FROM compared
    JOIN spans USING (span)
    {% if counts_for == "post" %}LEFT JOIN further_campaigns ON {{ measures.same("compared", "further_campaigns", by) }}{% endif %}
),
present AS (SELECT DISTINCT span_of_window, {{ grain | join(", ") }} FROM costed),
periods_side_by_side AS (
    SELECT
        spans.span, spans.date_basis, spans."window", spans.first_day, spans.last_day,
        {%- for name in grain %} present.{{ name }},{% endfor %}
        there.days, date_diff('day', spans.first_day, spans.last_day) + 1 AS days_expected,
        before_there.days AS previous_days
        {%- for column in measured %},
        {% if column.is_number_of_posts %}CASE WHEN there.days > 0{{ " AND spans.date_basis = 'post_date'" if column.is_cost }} THEN coalesce(now.{{ column.name }}, 0) END{% else %}now.{{ column.name }}{% endif %} AS {{ column.name }}
        {%- endfor %}
        {%- for column in measured if column.has_previous %},
        CASE WHEN before_there.is_known THEN {% if column.is_number_of_posts %}coalesce(before.{{ column.name }}, 0){% else %}before.{{ column.name }}{% endif %} END AS previous_{{ column.name }}
        {%- endfor %}
    FROM present
    JOIN spans ON spans.span = present.span_of_window
    LEFT JOIN spans AS span_before ON span_before.span_of_window = spans.span AND span_before.is_previous
    JOIN days_there AS there ON there.span = spans.span AND there.instance_id = present.instance_id
    LEFT JOIN days_there AS before_there
        ON before_there.span = span_before.span AND before_there.instance_id = present.instance_id
    LEFT JOIN costed AS now ON now.span = spans.span AND {{ measures.same("now", "present", grain) }}
    LEFT JOIN costed AS before ON before.span = span_before.span AND {{ measures.same("before", "present", grain) }}
),
changes AS (
    SELECT
        *
        {%- for column in measured if column.has_change %},
        CASE WHEN days = previous_days THEN
            {% if column.is_difference %}significant({{ column.name }} - previous_{{ column.name }})
            {%- else %}quotient(100.0 * (CAST({{ column.name }} AS DOUBLE) - previous_{{ column.name }}), previous_{{ column.name }}){% endif %}
        END AS {{ column.name }}_change
        {%- endfor %}
    FROM periods_side_by_side
)
{%- endmacro -%}
