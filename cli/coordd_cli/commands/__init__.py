"""The commands, a module for each noun. They import at their top only what is light: `coordctl --help` loads them all."""
