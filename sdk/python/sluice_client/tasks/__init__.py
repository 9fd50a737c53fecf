"""Tasks: how they are declared, called and enqueued."""
