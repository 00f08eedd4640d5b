-- What did a user trade?  One row for each side of a deal that was the user's, in no order.
CREATE OR REPLACE MACRO user_deals(of_user) AS TABLE
FROM deal_sides() WHERE "user" = of_user;
