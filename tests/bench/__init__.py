"""Benchmarks: `make bench`. Not tests; what they print goes into docs/benchmarks.md."""
