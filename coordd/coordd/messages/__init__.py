"""What travels: between servers, into the log, and between clients and servers."""
