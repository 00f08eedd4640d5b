-- Who traded what with whom?  Two rows a deal, one for each side, in no order.
--
-- role: 1 maker, 2 taker.  side: the row's own, 1 sell, 2 buy.  fee: the row's own.
-- deal_order_id: the other side's order.
CREATE OR REPLACE MACRO deal_sides() AS TABLE
SELECT
    time, taker_user AS "user", deal_id, market_no, market, side, 2::TINYINT AS role,
    price, amount, deal, taker_fee AS fee, taker_order_id AS order_id,
    maker_order_id AS deal_order_id
FROM deals
UNION ALL
SELECT
    time, maker_user AS "user", deal_id, market_no, market, (3 - side)::TINYINT AS side,
    1::TINYINT AS role, price, amount, deal, maker_fee AS fee, maker_order_id AS order_id,
    taker_order_id AS deal_order_id
FROM deals;
