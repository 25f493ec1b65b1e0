"""``python -m llama_index_presets.cli``."""

from llama_index_presets.cli import main

main()
