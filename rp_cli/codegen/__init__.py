"""Generation of test files: a plan (data), a rendering of it (text), and one atomic write."""
