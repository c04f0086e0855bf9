"""The main job: take each host of the inventory from bare OS to services that answer completions.

    pyinfra inventories/lab.py deploys/serve.py --dry    # what would change
    pyinfra inventories/lab.py deploys/serve.py          # change it

Each role stands on its own line: pyinfra tells operations apart by the line numbers of their callers.
"""

from roles.endpoints import endpoints
from roles.llamacpp import llamacpp
from roles.models import models
from roles.preflight import preflight
from roles.services import services

preflight()
llamacpp()
models()
services()
endpoints()
