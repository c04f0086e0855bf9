"""The virtual machines of the Vagrantfile, tagged with GPUs they do not have: planned for a GPU, served on the CPU.

Run from the folder of the Vagrantfile; a machine that `vagrant up` has not made is left out. The model is the hub's
smallest, or the one that `rackserve lab depot` offers.
"""

from rackserve.lab.vagrant import created as _created
from rackserve.lab.vagrant import model_data as _model_data

_gpu_tags = {"g1": "rtx-4090", "g2": "h100-pcie"}
_model = _model_data()

vagrant = [
    (
        f"@vagrant/{_name}",
        {
            **{_key: _value for _key, _value in _model.items() if _key != "model"},
            # Vagrant gives every new machine new host keys at old addresses, and does not check them itself.
            "ssh_strict_host_key_checking": "off",
            "ssh_known_hosts_file": "/dev/null",
            "gpu_tag": _gpu_tags[_name],
            "gpu_simulated": True,
            "memory_mib": 1024,
            "services": [{"name": "chat", "model": _model["model"], "concurrency": 2}],
        },
    )
    for _name in _created(tuple(_gpu_tags))
]
