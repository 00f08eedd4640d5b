-- Which deals do not have exactly their rows in the balances?
--
-- Of each side a deal makes a row of what it paid, one of what it received, and if that is not 0
-- one of its fee, and one of the share that a referrer gets of the fee.  first_id, last_id: deals
-- of all markets.  What may be missing, see check_begin.sql.  Shares of an order that is not
-- finished are only held against the fee, for nobody but the order knows its referrer.
CREATE OR REPLACE TEMP MACRO check_postings(first_id, last_id) AS TABLE
WITH sides AS (
    SELECT
        market_no, deal_id, order_id,
        any_value("user") AS "user",
        any_value(price) AS price,
        any_value(amount) AS amount,
        any_value(fee) AS fee,
        any_value(side) AS side,
        any_value(CASE side WHEN 1 THEN amount ELSE deal END) AS paid,
        any_value(CASE side WHEN 1 THEN deal ELSE amount END) AS received
    FROM deal_sides()
    WHERE deal_id BETWEEN first_id AND last_id
    GROUP BY market_no, deal_id, order_id
), referrals AS (
    SELECT
        market_no, order_id,
        any_value(ref_user) AS ref_user,
        any_value(ref_rate) AS ref_rate
    FROM orders SEMI JOIN sides USING (market_no, order_id)
    GROUP BY market_no, order_id
), terms AS (
    SELECT
        s.*,
        CASE side WHEN 1 THEN stock_id ELSE money_id END AS asset_paid,
        taken.asset_id AS asset_received,
        taken.prec_save AS digits,
        r.ref_user AS referrer,
        CASE
            WHEN r.ref_user = 0 THEN 0
            ELSE TRY(share_of(fee, r.ref_rate, taken.prec_save))
        END AS share
    FROM sides AS s
    JOIN markets AS m USING (market_no)
    JOIN assets AS taken
        ON taken.asset_id = CASE side WHEN 1 THEN m.money_id ELSE m.stock_id END
    LEFT JOIN referrals AS r USING (market_no, order_id)
), expected AS (
    SELECT
        market_no, deal_id, order_id, price, amount, fee, received, digits,
        unnest([
            {kind: 'paid', of_user: "user", of_asset: asset_paid, units: -units_of(paid)},
            {
                kind: 'received', of_user: "user", of_asset: asset_received,
                units: units_of(received)
            },
            {kind: 'fee', of_user: "user", of_asset: asset_received, units: -units_of(fee)},
            {
                kind: 'share', of_user: referrer, of_asset: asset_received,
                units: CASE WHEN fee = 0 THEN 0 ELSE share END
            }
        ], recursive := true)
    FROM terms
), due AS (
    SELECT e.*, coalesce(deal_id > after_deal AND deal_id < until_deal, false) AS is_due
    FROM expected AS e
    LEFT JOIN check_homes AS h ON h."user" = e.of_user
    LEFT JOIN check_reach AS r ON r.shard = h.shard AND r.market_no = e.market_no
    WHERE units IS NULL OR units <> 0
), found AS (
    SELECT
        market_no, deal_id, order_id,
        CASE
            WHEN business = 'ref' THEN 'share'
            WHEN fee_rate IS NOT NULL THEN 'fee'
            WHEN change < 0 THEN 'paid'
            ELSE 'received'
        END AS kind,
        count(*) AS times,
        any_value("user") AS "user",
        any_value(asset_id) AS asset_id,
        any_value(change) AS change,
        any_value(price) AS price,
        any_value(amount) AS amount,
        any_value(fee_rate) AS fee_rate
    FROM balances
    WHERE market_no IS NOT NULL AND deal_id BETWEEN first_id AND last_id
    GROUP BY ALL
), judged AS (
    SELECT
        market_no, deal_id, order_id, kind,
        CASE
            WHEN f.times > 1 THEN 'a row is there more than once'
            WHEN f.times IS NULL AND d.is_due THEN 'a row is missing'
            WHEN f.times IS NULL THEN NULL
            WHEN d.of_asset IS NULL THEN 'a row is there without such a deal'
            WHEN d.of_asset <> f.asset_id
                OR d.units IS NULL AND NOT (f.change > 0 AND f.change <= d.fee)
                OR d.units <> units_of(f.change)
                OR d.of_user <> f."user"
                OR kind <> 'share' AND (d.price, d.amount) IS DISTINCT FROM (f.price, f.amount)
                OR kind = 'fee' AND TRY(share_of(d.received, f.fee_rate, d.digits))
                    IS DISTINCT FROM -d.units
            THEN 'a row says otherwise than its deal'
        END AS what
    FROM due AS d FULL JOIN found AS f USING (market_no, deal_id, order_id, kind)
)
SELECT
    what,
    called(k.market, market_no) || ' deal ' || deal_id || ' order ' || order_id || ': ' || kind
        AS example,
    deal_id AS place
FROM judged
JOIN check_markets AS k USING (market_no)
SEMI JOIN markets USING (market_no)
WHERE what IS NOT NULL AND deal_id BETWEEN first_deal AND last_deal;
