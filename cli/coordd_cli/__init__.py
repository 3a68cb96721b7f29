"""coordctl: the command line for operators and scripts."""
