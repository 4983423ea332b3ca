"""The live blog: sections, entries and personal notices."""
