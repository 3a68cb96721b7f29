"""The replicated state: applies committed commands to a SQLite database, deterministically."""
