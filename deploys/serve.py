"""The main job: take each host of the inventory from a working driver to services that answer completions.

    pyinfra inventories/lab.py deploys/serve.py --dry    # what would change
    pyinfra inventories/lab.py deploys/serve.py          # change it

Hosts without a GPU need nothing before it; the others deploys/drivers.py, or deploys/site.py, which does both.
Each role stands on its own line: pyinfra tells operations apart by the line numbers of their callers.
"""

from roles.endpoints import endpoints
from roles.gpu_ready import gpu_ready
from roles.images import images
from roles.llamacpp import llamacpp
from roles.lmstudio import lmstudio
from roles.mac_services import mac_services
from roles.models import models
from roles.ollama import ollama
from roles.preflight import preflight
from roles.services import services
from roles.sglang import sglang
from roles.vllm import vllm

preflight()
gpu_ready()
llamacpp()
vllm()
sglang()
images()
ollama()
lmstudio()
models()
services()
mac_services()
endpoints()
