"""What is durable beside the state: the log, the high-water mark and snapshots."""
