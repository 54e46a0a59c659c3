"""Voxels of one case: read from its files, reoriented, relabelled, and measured by label."""
