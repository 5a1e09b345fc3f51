-- Organic and paid results recorded in each week. A post counts once, even if it has results on several days.
{%- import "weeks_and_months.sql" as calendar with context %}
{{ calendar.weeks_and_months("week") }}
