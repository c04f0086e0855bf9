"""Remove rackserve from each host of the inventory: services, keys, users, units, releases. Models stay.

pyinfra inventories/lab.py deploys/uninstall.py --dry
pyinfra inventories/lab.py deploys/uninstall.py
"""

from roles.mac_uninstall import mac_uninstall
from roles.uninstall import uninstall

mac_uninstall()
uninstall()
