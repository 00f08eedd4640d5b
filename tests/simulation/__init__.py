"""The whole exchange in one process: real machines and rules, simulated network, disk and clock."""
