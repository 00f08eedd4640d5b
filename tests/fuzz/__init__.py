"""Fuzzing of what answers requests: in process over the real machines, and over HTTP."""
