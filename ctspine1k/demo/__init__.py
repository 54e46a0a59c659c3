"""A made-up data set in the published layout, and the main job on it."""
