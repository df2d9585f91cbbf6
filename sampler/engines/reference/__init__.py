"""The chain in float64 from the definitions: what every other engine is compared with."""
