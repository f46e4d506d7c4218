"""The command line of rp. The public libraries are the three packages beside this one."""

__version__ = "0.1.0"
