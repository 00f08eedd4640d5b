-- When was the first deal of a market?  One row; null when there was none.
-- Deals of a market are recorded in the order of time, so only its first day is opened.
CREATE OR REPLACE MACRO first_deal(of_market) AS TABLE
SELECT min(time) AS time
FROM deals
JOIN (
    SELECT part AS market_no, min(date) AS date
    FROM lake_files
    WHERE "table" = 'deals'
    GROUP BY part
) AS first_days USING (market_no, date)
WHERE market_no = market_number(of_market);
