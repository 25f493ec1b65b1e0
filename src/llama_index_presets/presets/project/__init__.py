"""Project file, which names preset, storage, sources, models and settings of its folder; and where settings stand."""
