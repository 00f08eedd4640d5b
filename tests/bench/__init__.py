"""Benchmarks: each prints figures of the real code; tests assert only what no clock decides."""
