-- How did a user's accounts come to what they are?  In no order; seq and step say what was first.
CREATE OR REPLACE MACRO balance_history(of_user) AS TABLE
SELECT * FROM balances WHERE "user" = of_user;
