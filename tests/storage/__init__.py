"""Tests of the durable side; what several of them need is in places.py and child.py."""
