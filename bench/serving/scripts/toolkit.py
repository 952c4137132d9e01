"""Start a SageMaker inference toolkit as the images that have it do: multi-model-server, or TorchServe where that is.

    SAGEMAKER_BASE_DIR=... python toolkit.py FOLDER

Left as they come are workers (one a core), their threads, the Java heap and all limits. Changed is what only a
container makes harmless: the configuration file under /etc, which goes to FOLDER, addresses on the network, and the
answer to TERM, which would end another such server of the machine where that was found first.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def main():
    path = str(Path(sys.argv[1], "server.properties"))
    if find_spec("sagemaker_pytorch_serving_container"):
        from sagemaker_pytorch_serving_container import handler_service, torchserve

        torchserve.TS_CONFIG_FILE = path
        stay_on_this_machine(torchserve, "_generate_ts_config_properties")
        torchserve.start_torchserve(handler_service.__file__)
    else:
        from sagemaker_inference import model_server

        model_server.MMS_CONFIG_FILE = path
        stay_on_this_machine(model_server, "_generate_mms_config_properties")
        model_server.start_model_server()


def stay_on_this_machine(module, generate):
    """Bind to loopback only, and let TERM end no process but the own one."""
    original = getattr(module, generate)
    setattr(module, generate, lambda *arguments: original(*arguments).replace("//0.0.0.0:", "//127.0.0.1:"))
    module._add_sigterm_handler = lambda process: None


if __name__ == "__main__":
    main()
