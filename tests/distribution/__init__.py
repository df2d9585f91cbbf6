"""Do draws follow the distribution that they claim? Every statistical test says how often it is wrong."""
