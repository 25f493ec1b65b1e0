"""Project file: names preset, storage, sources, models and settings of the folder that it stands in."""
