"""One module per subcommand; each has a function ``command`` that Typer turns into the command."""
