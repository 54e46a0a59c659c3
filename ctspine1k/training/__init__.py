"""Patches and slices of compact volumes, as data sets for PyTorch. Importing them does not need PyTorch."""

from ctspine1k.training.patches import PatchDataset, PatchStream
from ctspine1k.training.slices import SliceDataset

__all__ = ["PatchDataset", "PatchStream", "SliceDataset"]
