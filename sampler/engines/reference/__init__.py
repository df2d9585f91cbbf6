"""The chain in float64 from its definitions, which every other engine is compared with."""
