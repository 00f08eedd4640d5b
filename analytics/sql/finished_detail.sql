-- What became of an order?  One row, or none when it is not among those of finished().
--
-- The low 12 bits of an order id are its market: only that market's files are opened.
CREATE OR REPLACE MACRO finished_detail(of_order) AS TABLE
SELECT *
FROM orders
WHERE market_no = of_order & 4095
    AND order_id = of_order
    AND (type = 2 OR deal_stock > 0);
