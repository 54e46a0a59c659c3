"""Voxels and points of one case, read from its files."""
