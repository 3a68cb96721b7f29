"""The server room: its parts by themselves, and together over a real log and state, with peers that a test speaks for."""
