"""An app of the tests: empties their database in milliseconds."""
