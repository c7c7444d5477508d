"""Messages to people: planned once, sent at most once, each on record."""
