"""Tests of coordd.state."""
