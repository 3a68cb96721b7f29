"""Plays of the consensus core: scripts that read like the story they test."""
