"""The agent: its DNS, its checks, its registry, and what it tells the servers."""
