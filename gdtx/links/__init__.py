"""Links: each does one thing, and every method is an expression of them."""
