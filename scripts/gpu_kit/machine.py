"""Check that this machine has every package that the kit needs; imports none of the project's own code."""

import importlib.util
import sys

MODULES = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "cv2": "opencv-python-headless", "av": "av",
    "yaml": "PyYAML", "pydantic": "pydantic", "pydantic_core": "pydantic-core", "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection", "typing_extensions": "typing-extensions", "tensorboard": "tensorboard",
    "lpips": "lpips", "scipy": "scipy", "matplotlib": "matplotlib", "tqdm": "tqdm", "PIL": "pillow",
    "safetensors": "safetensors", "pytest": "pytest",
}  # fmt: skip
"""Module → the package that has it."""


def main() -> int:
    missing = [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        options = " ".join(f"--package {package}" for package in missing)
        print(f"error: this machine lacks {', '.join(missing)}; make the bundle with {options}", file=sys.stderr)
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
