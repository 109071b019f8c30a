"""Printed names of methods, networks and platforms. Standard library only: rules ask for them."""

from collections.abc import Mapping

FORMS = {"bilinear_chain": "chain form", "bilinear_graph": "graph form"}
NAMES = {
    "ecc": "ECC",
    "ecc_outputs": "ECC by outputs",
    "outputs_alone": "its scores alone",
    "early_alone": "its schedule alone",
    "netadapt": "NetAdapt",
    "uniform": "uniform width",
    "amc": "AMC",
    "amc_published": "AMC, published settings",
    "deep_compression": "Deep Compression",
    "eap": "EAP",
    "eap_forward": "EAP in forward order",
    "eap_fixed": "EAP, equal share of all layers",
    "magnitude": "magnitude, equal share of all layers",
    "lcp": "LcP",
    "knapsack": "knapsack",
    "evolution": "evolution",
    "netadapt_table": "NetAdapt, table",
    "mobilenet_limited": "MobileNet, limited",
    "alexnet": "AlexNet",
    "alexnet_grouped": "AlexNet, grouped",
    "googlenet": "GoogLeNet",
    "mobilenet": "MobileNet",
    "resnet50": "ResNet-50",
    "squeezenet": "SqueezeNet",
    "vgg16": "VGG-16",
    "erfnet": "ERFNet",
    "gtx1080ti": "GTX 1080 Ti",
    "jetson_tx2": "Jetson TX2",
    "eyeriss": "Eyeriss",
    "published_tx2": "Jetson TX2 (published model)",
}


def name(key: str) -> str:
    """The printed name of a method, network or platform; an unknown one is its own name."""
    return NAMES.get(key, key)


def platform_title(platform: str) -> str:
    """The printed name of an emulated platform, which says that it is."""
    return f"emulated {name(platform)}"


def panel_title(key: tuple[str, str], titles: Mapping[str, str]) -> str:
    """Of (network or experiment, platform), by the printed names of platforms."""
    subject, platform = key
    return f"{name(subject)}, {titles[platform]}"
