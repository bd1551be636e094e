"""What a run survives: processes killed, hung and failing while it goes on, and the whole of it killed at once."""
