"""A made-up data set in the published layout, and a demonstration with it."""
