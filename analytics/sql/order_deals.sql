-- With whom and for how much did an order trade?  In no order; columns as in user_deals.
--
-- The low 12 bits of an order id are its market: only that market's files are opened.
CREATE OR REPLACE MACRO order_deals(of_order) AS TABLE
FROM deal_sides() WHERE market_no = of_order & 4095 AND order_id = of_order;
