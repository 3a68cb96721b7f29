"""The replicated state: one SQLite file that is a function of the log. `machine.Machine` is its door."""
