"""Entry of the command ``llama-presets``, and of ``python -m llama_index_presets``: Ctrl-C stops both at any moment."""

import gc
import sys

from llama_index_presets.concurrency.interrupts import interrupts_noted

__all__ = ["main"]

_OBJECTS_BETWEEN_COLLECTIONS = 200_000
"""As with Python's 700, collections would go through modules that live to the end: a sixth of a cold question."""


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being loaded ends it without a word, with code 130."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    with interrupts_noted() as interrupts:
        try:
            from llama_index_presets.cli import main as run

            run()
        except KeyboardInterrupt:
            sys.exit(130)
        except ImportError:
            if interrupts.heard:
                sys.exit(130)
            raise


if __name__ == "__main__":
    main()
