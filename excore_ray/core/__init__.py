"""The deterministic machines: commands in, events out, no I/O, no clock, no float."""
