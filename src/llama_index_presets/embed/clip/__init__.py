"""CLIP: text and images in one vector space, on this machine."""
