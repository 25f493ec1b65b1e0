"""``python -m llama_index_presets.cli``."""

from llama_index_presets.__main__ import main

if __name__ == "__main__":
    main()
