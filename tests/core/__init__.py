"""Tests of the deterministic core: no Ray, no I/O, no clock."""
