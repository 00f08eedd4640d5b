"""An exchange seen from its files alone: the deep audit, backups, and putting one back."""
