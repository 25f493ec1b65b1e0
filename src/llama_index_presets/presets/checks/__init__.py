"""Checks before a build: extras, keys, weights, and whether anything leaves the machine."""
