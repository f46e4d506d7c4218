"""The integration check: each part of rp, tried for real, and what to do where it does not work."""
