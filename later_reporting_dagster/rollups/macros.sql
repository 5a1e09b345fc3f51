-- DuckDB macros of the rollups. If an argument is null, the result is null, unless the macro's comment says otherwise.

-- Round to 12 significant digits: further digits depend on the machine and on the number of threads.
CREATE OR REPLACE MACRO round_significant(x) AS
    CASE WHEN x = 0 OR NOT isfinite(x) THEN x ELSE round(x, CAST(11 - floor(log10(abs(x))) AS INTEGER)) END;

-- Null unless the divisor is above 0.
CREATE OR REPLACE MACRO quotient(dividend, divisor) AS
    CASE WHEN divisor > 0 THEN round_significant(CAST(dividend AS DOUBLE) / CAST(divisor AS DOUBLE)) END;

-- Engagements per 100 impressions or views.
CREATE OR REPLACE MACRO rate(engagements, impressions) AS quotient(100.0 * engagements, impressions);

-- What a channel of a post adds to the same-post rate ratio, which is the Mantel-Haenszel rate ratio: its engagements,
-- multiplied by the other channel's share of the post's impressions. In units of 1e-18, which cancel out, so that sums do not
-- depend on the order of rows. (Decimals would also work, but DuckDB casts integers to floats ten times as fast.)
CREATE OR REPLACE MACRO same_post_term(engagements, impressions, other_impressions) AS
    CAST(
        CAST(engagements AS DOUBLE) * other_impressions * 1e18 / (CAST(impressions AS DOUBLE) + other_impressions)
        AS HUGEINT
    );

-- Bounds of a cost. CPE × engagements and CPM × impressions / 1000 are the same cost. Each unit cost is rounded to two
-- decimals, so each gives an interval, and the cost is in both. Without units, a unit cost gives no interval. `greatest` and
-- `least` ignore nulls, so one interval is enough.
CREATE OR REPLACE MACRO lowest_cost(unit_cost, units) AS
    CASE WHEN units > 0 AND unit_cost IS NOT NULL THEN greatest(unit_cost - 0.005, 0) * units END;
CREATE OR REPLACE MACRO highest_cost(unit_cost, units) AS CASE WHEN units > 0 THEN (unit_cost + 0.005) * units END;
CREATE OR REPLACE MACRO cost_low(cpe, engagements, cpm, impressions) AS
    greatest(lowest_cost(cpe, engagements), lowest_cost(cpm, impressions / 1000));
CREATE OR REPLACE MACRO cost_high(cpe, engagements, cpm, impressions) AS
    least(highest_cost(cpe, engagements), highest_cost(cpm, impressions / 1000));
-- The tolerance is for rounding errors of floats.
CREATE OR REPLACE MACRO is_contradictory(low, high) AS low > high * (1 + 1e-12);
-- An amount as a decimal, whose sums do not depend on the order of rows. Null if its bounds contradict each other, or if it is
-- absurd.
CREATE OR REPLACE MACRO bounded(amount, low, high) AS
    CASE WHEN NOT is_contradictory(low, high) AND high <= 1e9 THEN CAST(amount AS DECIMAL(18, 6)) END;
CREATE OR REPLACE MACRO middle(low, high) AS round_significant(CAST(low + high AS DOUBLE) / 2);
