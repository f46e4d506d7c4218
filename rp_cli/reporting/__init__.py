"""The record of runs and checks, and the report that is made of it."""
