"""``rp models coverage``: which model types have a tiny twin that runs a forward, and why not."""

from __future__ import annotations

from rp_cli.coverage.coverage import coverage

__all__ = ["coverage"]
