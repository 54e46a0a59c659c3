"""The data set in forms that load without this package."""
