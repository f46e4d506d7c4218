"""Where the program ``rp`` begins. Imports nothing: Ctrl-C is quiet from the first line on."""


def main() -> None:
    """Run ``rp``; Ctrl-C ends it without a word, in the middle of its imports too."""
    try:
        from rp_cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # ExitCode.INTERRUPTED, which may not be imported yet
