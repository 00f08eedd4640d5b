-- What do the accounts of these users hold, and where did it come from?  By asset and origin.
--
-- held: newest balances.  before: what the first kept rows started from.  update, fee, share:
-- changes of that kind.  settled: what was paid and received in deals whose rows are all there;
-- it sums to 0.  open: the same of other deals, which are there in part, or may be.
CREATE OR REPLACE TEMP MACRO check_sums(first_user, last_user) AS TABLE
WITH chosen AS (
    SELECT * FROM balances WHERE "user" BETWEEN first_user AND last_user
), accounts AS (
    SELECT
        asset_id,
        arg_max(balance, (seq, step)) AS newest,
        arg_min(TRY(balance - change), (seq, step)) AS oldest
    FROM chosen
    GROUP BY shard, "user", asset_id
), parts AS (
    SELECT asset_id, 'held' AS origin, newest AS quantity FROM accounts
    UNION ALL
    SELECT asset_id, 'before', oldest FROM accounts
    UNION ALL
    SELECT
        asset_id,
        CASE
            WHEN market_no IS NULL THEN 'update'
            WHEN business = 'ref' THEN 'share'
            WHEN fee_rate IS NOT NULL THEN 'fee'
            WHEN deal_id >= low AND deal_id < high THEN 'settled'
            ELSE 'open'
        END,
        change
    FROM chosen LEFT JOIN check_settled USING (market_no)
)
SELECT asset_id, origin, total_whole(quantity) AS whole, total_fraction(quantity) AS fraction
FROM parts
GROUP BY asset_id, origin;
