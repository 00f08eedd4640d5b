-- Which is the newest deal of a market?  One row: its deal_id; null when there was none.
CREATE OR REPLACE MACRO newest_deal(of_market) AS TABLE
SELECT max(last_deal_id) AS deal_id FROM bars WHERE market_no = market_number(of_market);
