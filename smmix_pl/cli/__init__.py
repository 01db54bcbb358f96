"""The command line: `smmix` and `lightning`, two names for one program."""
