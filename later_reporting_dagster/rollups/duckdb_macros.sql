-- DuckDB macros for all rollups. If an argument is null, the result is null, unless the macro's comment says otherwise.

-- Round to 12 significant digits: further digits depend on the machine and on the number of threads.
CREATE OR REPLACE MACRO round_significant(x) AS
    CASE WHEN x = 0 OR NOT isfinite(x) THEN x ELSE round(x, CAST(11 - floor(log10(abs(x))) AS INTEGER)) END;

-- An amount as a decimal with 6 digits, so that its sums do not depend on the order of rows.
CREATE OR REPLACE MACRO money(x) AS CAST(x AS DECIMAL(18, 6));

-- Null unless the divisor is above 0.
CREATE OR REPLACE MACRO quotient(dividend, divisor) AS
    CASE WHEN divisor > 0 THEN round_significant(CAST(dividend AS DOUBLE) / CAST(divisor AS DOUBLE)) END;

-- Engagements per 100 impressions or views.
CREATE OR REPLACE MACRO rate(engagements, impressions) AS quotient(100.0 * engagements, impressions);

-- Paid share of both channels, in percent. If one channel is null, the total is unknown.
CREATE OR REPLACE MACRO share(paid, organic) AS quotient(100.0 * paid, CAST(paid AS HUGEINT) + organic);

-- Paid rate divided by organic rate.
CREATE OR REPLACE MACRO lift(paid_engagements, paid_impressions, organic_engagements, organic_impressions) AS
    CASE
        WHEN paid_impressions > 0 AND organic_impressions > 0
            THEN quotient(
                CAST(paid_engagements AS DOUBLE) / paid_impressions,
                CAST(organic_engagements AS DOUBLE) / organic_impressions
            )
    END;

-- Bounds of the spend. CPE × engagements and CPM × impressions / 1000 are the same cost. Each unit cost is rounded to two
-- decimals, so each gives an interval, and the cost is in both intervals. If there are 0 units, the unit cost gives no
-- interval.
CREATE OR REPLACE MACRO cost_minimum(unit_cost, units) AS
    CASE WHEN units > 0 AND unit_cost IS NOT NULL THEN greatest(unit_cost - 0.005, 0) * units END;
CREATE OR REPLACE MACRO cost_maximum(unit_cost, units) AS
    CASE WHEN units > 0 THEN (unit_cost + 0.005) * units END;
-- `greatest` and `least` ignore nulls, so one interval is enough.
CREATE OR REPLACE MACRO spend_minimum(cpe, engagements, cpm, impressions) AS
    greatest(cost_minimum(cpe, engagements), cost_minimum(cpm, impressions / 1000));
CREATE OR REPLACE MACRO spend_maximum(cpe, engagements, cpm, impressions) AS
    least(cost_maximum(cpe, engagements), cost_maximum(cpm, impressions / 1000));
-- Whether the two intervals do not overlap. The tolerance is for rounding errors of floats.
CREATE OR REPLACE MACRO is_contradictory(lower, upper) AS lower > upper * (1 + 1e-12);

-- Confidence intervals. The 97.5 % quantile of Student's t, by its expansion around the normal quantile (Abramowitz and
-- Stegun 26.7.5). Its error is below 0.04 % from 4 degrees of freedom on; fewer do not occur.
CREATE OR REPLACE MACRO t_quantile(degrees) AS
    1.959963985 + 2.372271230 / degrees + 2.822498616 / degrees ** 2 + 2.555849680 / degrees ** 3
    + 1.589534053 / degrees ** 4;

-- The share of a total that remains without one part; null if nothing remains. `share` is the part's share.
CREATE OR REPLACE MACRO remaining(share) AS CASE WHEN share < 1 THEN 1 - share END;

-- A square as a decimal, so that sums of squares do not depend on the order of rows.
CREATE OR REPLACE MACRO exact_square(x) AS CAST(x * x AS DECIMAL(38, 24));

-- Half the width of the interval of a log, by the delete-one jackknife over clusters:
--   squares    sum of the squared changes of the log when one cluster is left out
--   changes    number of these changes that are not null; a change is null if nothing remains without the cluster
--   clusters   number of clusters
--   effective  effective number of clusters: that many equal clusters would be as informative
--   degrees    degrees of freedom
-- Null if nothing remains without one of the clusters, if `effective` is too small, or if all clusters are alike.
CREATE OR REPLACE MACRO half_width(squares, changes, clusters, effective, degrees) AS
    CASE
        WHEN changes = clusters AND effective >= {{ minimum_clusters }} AND squares * (clusters - 1) / clusters > 1e-18
            THEN t_quantile(degrees) * sqrt(CAST(squares AS DOUBLE) * (clusters - 1) / clusters)
    END;

-- Whether an interval of a lift is above 1, below 1 or includes 1. Null without an interval.
CREATE OR REPLACE MACRO verdict(low, high) AS
    CASE WHEN low > 1 THEN 'paid_higher' WHEN high < 1 THEN 'organic_higher' WHEN low <= high THEN 'undecided' END;
