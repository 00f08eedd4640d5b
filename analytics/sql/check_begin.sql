-- What does the lake hold, and up to where can its streams be compared?

-- The deals that are kept of each market; with retention they begin later than with deal 1.
CREATE OR REPLACE TEMP TABLE check_markets AS
SELECT
    market_no,
    any_value(market) AS market,
    min(deal_id) AS first_deal,
    max(deal_id) AS last_deal,
    min(time) AS first_time
FROM deals
GROUP BY market_no;

-- whole: the shard's rows begin with its first entry.  A file of entry 1 alone does not say so: a
-- flush writes a file a date, and of the first flush the first dates may be gone.  So no market
-- may have lost deals, either, and if something in the lake is older than the shard's rows, the
-- first of these must start from 0.
CREATE OR REPLACE TEMP TABLE check_shards AS
SELECT
    shard,
    reaches_back
    AND NOT EXISTS (SELECT 1 FROM check_markets WHERE first_deal > 1)
    AND (first_date = (SELECT min(date) FROM lake_files) OR balance = change) AS whole
FROM (
    SELECT part AS shard, min(first_seq) = 1 AS reaches_back, min(date) AS first_date
    FROM lake_files
    WHERE "table" = 'balances'
    GROUP BY part
)
LEFT JOIN (
    SELECT shard, arg_min(balance, (seq, step)) AS balance, arg_min(change, (seq, step)) AS change
    FROM balances
    GROUP BY shard
) USING (shard);

-- Where each user's rows are.  Who has none may be of a shard that is not in the lake yet.
CREATE OR REPLACE TEMP TABLE check_homes AS
SELECT "user", min(shard) AS shard FROM balances GROUP BY "user";

-- A shard applies what a market sends in the order of its deals, and a flush writes a whole
-- beginning of what is not written yet.  So the rows of a deal are all there once the shard has a
-- row of a later one; those of its newest deal may still be in part on their way.  Where older
-- rows are gone, those of the oldest deal may be gone in part.
-- All rows of deals after after_deal and before until_deal are there.
CREATE OR REPLACE TEMP TABLE check_reach AS
SELECT
    shard,
    market_no,
    CASE WHEN any_value(whole) THEN 0 ELSE min(deal_id) END AS after_deal,
    max(deal_id) AS until_deal
FROM balances JOIN check_shards USING (shard)
WHERE market_no IS NOT NULL
GROUP BY shard, market_no;

-- The deals of each market of which both sides have all their rows: from low on, before high.
CREATE OR REPLACE TEMP TABLE check_settled AS
WITH lows AS (
    SELECT market_no, greatest(first_deal, coalesce(max(after_deal), 0) + 1) AS low, last_deal
    FROM check_markets LEFT JOIN check_reach USING (market_no)
    GROUP BY market_no, first_deal, last_deal
)
SELECT
    market_no,
    any_value(low) AS low,
    coalesce(
        min(deal_id) FILTER (until_deal IS NULL OR deal_id >= until_deal),
        any_value(last_deal) + 1
    ) AS high
FROM lows
JOIN deal_sides() USING (market_no)
LEFT JOIN check_homes USING ("user")
LEFT JOIN check_reach USING (shard, market_no)
WHERE deal_id >= low
GROUP BY market_no;
