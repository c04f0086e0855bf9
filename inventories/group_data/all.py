"""Defaults of every host in every inventory; a host or group that needs another value states the key itself.

All keys are listed in docs/inventory.md. Those with another default than rackserve's own stand here.
"""

# root by sudo where the ssh user is not root; asked without a password, so that no secret is typed into a run.
_sudo = True
ssh_connect_retries = 3
