"""The storage room on real files."""
