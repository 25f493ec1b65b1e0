"""Threads, event loops and forked processes: what is shared, and how it ends."""
