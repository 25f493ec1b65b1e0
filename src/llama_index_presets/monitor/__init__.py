"""What every call cost, how long it took and what went wrong."""
