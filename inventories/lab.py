"""The hosts of the throwaway lab (`rackserve lab up`), each serving the lab's model on its own address.

The name of the lab is taken from RACKSERVE_LAB, as `rackserve lab` does.
"""

from rackserve.lab.inventory import inventory_hosts as _inventory_hosts
from rackserve.lab.inventory import model_data as _model_data

# What the lab serves, and where it is found: {"model": ..., "model_hub": ..., "catalog": [...]}.
_model = _model_data()

lab = [
    (
        _name,
        {
            **{_key: _value for _key, _value in _model.items() if _key != "model"},
            **_data,
            # A simulated GPU has a driver to be installed, and computes nothing.
            "services": []
            if _data["gpu_tag"] != "cpu"
            else [
                {
                    "name": "chat",
                    "model": _model["model"],
                    "concurrency": 2,
                    # Reachable from the machine that the lab runs on, and from nowhere else.
                    "listen": _data["lab_listen"],
                    "port": _data["lab_port"],
                    "allow_from": [_data["lab_network"]],
                }
            ],
        },
    )
    for _name, _data in _inventory_hosts()
]
