-- Which orders of a user in a market are done?  In no order.
--
-- Filled limit orders, every market order, and cancelled orders that had a deal.
CREATE OR REPLACE MACRO finished(of_user, of_market) AS TABLE
SELECT *
FROM orders
WHERE market_no = market_number(of_market)
    AND "user" = of_user
    AND (type = 2 OR deal_stock > 0);
