-- Which finished orders say something else than their deals?
--
-- first_id, last_id: order ids.  An order that may have a deal before the first one kept is not
-- compared with its deals; that no deal is kept at all says nothing, either.
CREATE OR REPLACE TEMP MACRO check_orders(first_id, last_id) AS TABLE
WITH finished_orders AS (
    SELECT
        *,
        CASE WHEN type = 2 AND side = 2 THEN deal_money ELSE deal_stock END AS filled,
        count(*) OVER (PARTITION BY market_no, order_id) AS times
    FROM orders
    WHERE order_id BETWEEN first_id AND last_id
), dealt AS (
    SELECT
        market_no,
        order_id,
        min("user") AS user_min,
        max("user") AS user_max,
        min(side) AS side_min,
        max(side) AS side_max,
        total_whole(amount) AS stock_whole,
        total_fraction(amount) AS stock_fraction,
        total_whole(deal) AS money_whole,
        total_fraction(deal) AS money_fraction,
        total_whole(fee) AS fee_whole,
        total_fraction(fee) AS fee_fraction
    FROM deal_sides() SEMI JOIN finished_orders USING (market_no, order_id)
    WHERE order_id BETWEEN first_id AND last_id
    GROUP BY market_no, order_id
), sums AS (
    SELECT
        market_no,
        order_id,
        user_min = user_max AND side_min = side_max AS single,
        user_min AS dealer,
        side_min AS dealer_side,
        carried_whole(stock_whole, stock_fraction) AS stock_whole,
        carried_fraction(stock_fraction) AS stock_fraction,
        carried_whole(money_whole, money_fraction) AS money_whole,
        carried_fraction(money_fraction) AS money_fraction,
        carried_whole(fee_whole, fee_fraction) AS fee_whole,
        carried_fraction(fee_fraction) AS fee_fraction
    FROM dealt
), judged AS (
    SELECT
        market_no,
        o.market,
        order_id,
        times > 1 AS doubled,
        TRY(amount - filled) IS DISTINCT FROM "left" AS misfilled,
        NOT (single AND dealer = "user" AND dealer_side = side) AS foreign_deals,
        (first_deal = 1 OR ctime > first_time)
        AND (
            trunc(deal_stock) <> coalesce(stock_whole, 0)
            OR deal_stock - trunc(deal_stock) <> coalesce(stock_fraction, 0)
            OR trunc(deal_money) <> coalesce(money_whole, 0)
            OR deal_money - trunc(deal_money) <> coalesce(money_fraction, 0)
            OR trunc(deal_fee) <> coalesce(fee_whole, 0)
            OR deal_fee - trunc(deal_fee) <> coalesce(fee_fraction, 0)
        ) AS missummed
    FROM finished_orders AS o
    LEFT JOIN sums USING (market_no, order_id)
    LEFT JOIN check_markets USING (market_no)
)
SELECT
    CASE
        WHEN doubled THEN 'an order is there more than once'
        WHEN misfilled THEN 'left is not amount less what was dealt'
        WHEN foreign_deals THEN 'a deal has another user or side than its order'
        WHEN missummed THEN 'the sums are not those of its deals'
    END AS what,
    called(market, market_no) || ' order ' || order_id AS example,
    order_id AS place
FROM judged
WHERE what IS NOT NULL;
