"""The shapes that callers see. Requests are parsed with them; answers are only documented and tested by them."""
