"""The business under fire: orders that are committed with their job."""
