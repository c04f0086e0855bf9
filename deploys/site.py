"""From bare OS to services in one run: what drivers.py does, then what serve.py does.

    pyinfra inventories/prod.py deploys/site.py --dry    # what would change, and what stands against it
    pyinfra inventories/prod.py deploys/site.py          # change it

Each role stands on its own line: pyinfra tells operations apart by the line numbers of their callers.
"""

from roles.apple_memory import apple_memory
from roles.container_toolkit import container_toolkit
from roles.driver import driver
from roles.endpoints import endpoints
from roles.gpu_preflight import gpu_preflight
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
gpu_preflight()
driver()
container_toolkit()
apple_memory()
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
