"""The business: shops order, and are told what becomes of it."""
