"""Tests of the consensus core, alone and in small clusters."""
