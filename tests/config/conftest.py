"""Makes the business's fixtures known here."""

from tests.business import order, retailer, salt, sandbox, sandbox_servers, tea, vendor

__all__ = ["order", "retailer", "salt", "sandbox", "sandbox_servers", "tea", "vendor"]
