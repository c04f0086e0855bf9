"""pyinfra facts: a command and one line around a pure parse function.

Facts are read again for every use (pyinfra caches none) and one round trip each, so they are few and composite. Their
commands never fail: a failing fact would fail the host while it is only being looked at.
"""
