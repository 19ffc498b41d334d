-- Which delivery status notifications a message asks later relays for (RFC 3461): what of NOTIFY, and whether all of it returns.

ALTER TABLE messages ADD COLUMN dsn TEXT;
