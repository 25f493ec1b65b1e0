"""``python -m llama_index_presets``, the same as ``llama-presets``."""

from llama_index_presets.cli import main

if __name__ == "__main__":
    main()
