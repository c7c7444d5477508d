"""What the business's admin pages share."""

from typing import Any


class ReadOnly:
    """Mixed into admins of rows that programs write."""

    def has_add_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody adds them by hand."""
        return False

    def has_change_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody changes them by hand."""
        return False

    def has_delete_permission(self, *args: Any, **kwargs: Any) -> bool:
        """Nobody removes them by hand."""
        return False
