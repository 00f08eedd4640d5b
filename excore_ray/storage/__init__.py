"""The durable side: the journal port, its implementations, and snapshots."""
