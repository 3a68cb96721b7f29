"""The tests, room by room as the product; sim/ and bench/ are programs of their own."""
