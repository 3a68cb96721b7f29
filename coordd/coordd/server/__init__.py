"""The server process: one loop that drives the core, the storage, the state and the sockets."""
