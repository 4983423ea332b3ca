"""A site with a feed for every kind of rule, and with everything by which one can say who one is.

It is for the table of rights (tests/e2e/test_rights.py), which runs it on real servers.
"""
