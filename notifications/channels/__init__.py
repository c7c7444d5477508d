"""One module per way to reach people; each knows one provider's wire format."""
