"""Entry of the command ``llama-presets``, and of ``python -m llama_index_presets``: Ctrl-C stops both at any moment."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being loaded ends it without a word, with code 130."""
    try:
        from llama_index_presets.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
