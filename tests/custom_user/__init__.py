"""A site with a user model of its own: a UUID named ``uid`` as key, no ``id``, no ``is_staff``, no permissions.

Its tests need settings of their own, so they run in a process of their own: tests/test_custom_user.py starts it.
"""
