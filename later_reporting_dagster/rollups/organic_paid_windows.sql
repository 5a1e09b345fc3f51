-- Organic and paid results over windows, by {{ grain | join(", ") }}, beside those of the period before.
WITH groups AS (
    SELECT
        time_window, is_previous, CASE WHEN grouping(posts.instance_id) = 0 THEN 'instance' ELSE 'all' END AS scope,
        coalesce(posts.instance_id, '') AS instance_id, {{ group }}
        {% filter trim | indent(8) %}{% include "organic_paid_sums.sql" %}{% endfilter %}
    FROM {{ facts }} AS posts
    GROUP BY GROUPING SETS (
        ({{ group }}time_window, is_previous, posts.instance_id){% if has_all %}, ({{ group }}time_window, is_previous){% endif %}
    )
),
rated AS (
    SELECT
        *,
        {% filter trim | indent(8) %}{% include "organic_paid_rates.sql" %}{% endfilter %}
    FROM groups
)
SELECT
    rated.*, current_days.first_day, current_days.last_day, current_days.days, current_days.days_expected,
    previous_days.first_day AS previous_first_day, previous_days.last_day AS previous_last_day, previous_days.days AS previous_days,
    -- What a group earned before is comparable if both periods have all their days. Then, a group without a row had no posts.
    current_days.days = current_days.days_expected AND previous_days.days = previous_days.days_expected AS is_comparable,
    {%- for name in previous %}
    CASE WHEN is_comparable THEN {{ "coalesce(previous.posts, 0)" if name == "posts" else "previous." ~ name }} END AS previous_{{ name }},
    {%- endfor %}
    {%- for name in labels %}
    {{ label_relation }}.{{ name }},
    {%- endfor %}
FROM rated
JOIN period_days AS current_days USING (time_window, is_previous, scope, instance_id)
JOIN period_days AS previous_days
    ON previous_days.is_previous AND previous_days.time_window = rated.time_window AND previous_days.scope = rated.scope
    AND previous_days.instance_id = rated.instance_id
LEFT JOIN rated AS previous
    ON previous.is_previous AND previous.time_window = rated.time_window AND previous.scope = rated.scope
    AND previous.instance_id = rated.instance_id
    {%- for name in grain %}
    AND previous.{{ name }} IS NOT DISTINCT FROM rated.{{ name }}
    {%- endfor %}
{%- if label_relation == "creators" %}
LEFT JOIN creators ON creators.instance_id = rated.instance_id AND creators.creator_id = rated.creator_id
{%- elif label_relation == "campaigns" %}
LEFT JOIN campaigns ON campaigns.instance_id = rated.instance_id AND campaigns.campaign_id = rated.campaign_id
{%- endif %}
WHERE NOT rated.is_previous
