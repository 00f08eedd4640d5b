"""An exchange core on Ray: matching, accounts and their durable history."""
