"""Patches of compact volumes, as data sets for PyTorch. Importing them does not need PyTorch."""

from ctspine1k.training.patches import PatchDataset, PatchStream

__all__ = ["PatchDataset", "PatchStream"]
