"""Pictures of cases with their labels."""
