"""Benchmarks: each module is a program, `python -m tests.bench.NAME`."""
