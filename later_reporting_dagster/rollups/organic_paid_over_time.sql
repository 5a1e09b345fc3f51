-- Organic and paid results recorded in each day, week or month, by {{ grain | join(", ") }}.
WITH groups AS (
    SELECT
        first_day, {{ grain | join(", ") }},
        {% filter trim | indent(8) %}{% include "organic_paid_sums.sql" %}{% endfilter %}
    FROM {{ facts }} AS posts
    GROUP BY ALL
),
days AS (
    SELECT first_day, last_day, instance_id, count(*) AS days
    FROM stored_files JOIN periods ON date BETWEEN first_day AND last_day
    WHERE table_name = 'post_metrics_daily'
    GROUP BY ALL
)
SELECT
    groups.*,
    {% filter trim | indent(4) %}{% include "organic_paid_rates.sql" %}{% endfilter %},
    days,
    last_day - first_day + 1 AS days_expected
FROM groups JOIN days USING (first_day, instance_id)
