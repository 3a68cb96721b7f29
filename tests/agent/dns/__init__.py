"""DNS: every answer that a resolver can get, asked with programs and libraries that nobody here wrote."""
