"""A node for ComfyUI. Install KEEP in ComfyUI's environment, and write ``custom_nodes/keep_vfsr/__init__.py``:

from keep.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
"""

from keep.comfyui.node import RestoreVideo

NODE_CLASS_MAPPINGS = {"KeepRestoreVideo": RestoreVideo}
NODE_DISPLAY_NAME_MAPPINGS = {"KeepRestoreVideo": "KEEP: restore the faces of a video"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "RestoreVideo"]
