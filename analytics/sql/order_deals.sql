-- With whom and for how much did an order trade?  In no order; columns as in user_deals.
--
-- The low 12 bits of an order id are its market: only that market's files are opened.
CREATE OR REPLACE MACRO order_deals(of_order) AS TABLE
SELECT
    time, taker_user AS "user", deal_id, market_no, market, side, 2::TINYINT AS role,
    price, amount, deal, taker_fee AS fee, taker_order_id AS order_id,
    maker_order_id AS deal_order_id
FROM deals
WHERE market_no = of_order & 4095 AND taker_order_id = of_order
UNION ALL
SELECT
    time, maker_user AS "user", deal_id, market_no, market, (3 - side)::TINYINT AS side,
    1::TINYINT AS role, price, amount, deal, maker_fee AS fee, maker_order_id AS order_id,
    taker_order_id AS deal_order_id
FROM deals
WHERE market_no = of_order & 4095 AND maker_order_id = of_order;
