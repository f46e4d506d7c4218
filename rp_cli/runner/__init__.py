"""Running test files: a child process per file, a deadline each, one record of what happened."""
