"""The app of the documentation's examples; it is installed as ``news``."""
