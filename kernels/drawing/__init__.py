"""The drawing operation: contract in op.py, meaning in reference.py, native call in native.py."""
