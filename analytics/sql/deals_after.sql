-- Which deals of a market came after one that is known?  In no order; after_deal 0 is all.
CREATE OR REPLACE MACRO deals_after(of_market, after_deal) AS TABLE
SELECT * FROM deals WHERE market_no = market_number(of_market) AND deal_id > after_deal;
