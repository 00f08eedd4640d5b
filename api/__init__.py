"""The gateway: RPC over HTTP and WebSocket in front of an exchange."""
