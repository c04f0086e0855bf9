"""Have each host's GPUs driven by what the plan chose: driver, modules, container toolkit; serve.py comes after it.

    pyinfra inventories/lab.py deploys/drivers.py --dry    # what would change, and what stands against it
    pyinfra inventories/lab.py deploys/drivers.py          # change it

Each role stands on its own line: pyinfra tells operations apart by the line numbers of their callers.
"""

from roles.apple_memory import apple_memory
from roles.container_toolkit import container_toolkit
from roles.driver import driver
from roles.gpu_preflight import gpu_preflight

gpu_preflight()
driver()
container_toolkit()
apple_memory()
