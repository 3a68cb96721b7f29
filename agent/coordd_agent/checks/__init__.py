"""Health checks: when each runs, and one module for each kind."""
