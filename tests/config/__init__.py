"""Settings: the machinery that reads them, and the example files."""
