"""Index directory: where it is, what is in it, its stores, its keyword index, its encryption and its compaction."""
