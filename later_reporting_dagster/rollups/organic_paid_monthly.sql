-- Results recorded in each month, organic beside paid. A post counts once, on however many days it has results.
{%- import "weeks_and_months.sql" as calendar with context %}
{{ calendar.weeks_and_months("month") }}
