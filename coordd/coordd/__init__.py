"""coordd: a coordination service whose servers form a Raft cluster over ZeroMQ and keep everything in SQLite."""
