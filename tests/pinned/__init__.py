"""Values that must never change unnoticed: a change here is a value-breaking change."""
