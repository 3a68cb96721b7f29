"""The commands of coordctl, one module for each family."""
