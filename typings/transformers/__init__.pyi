# Any value at all, for the type checker alone: reading the package's own index of models takes it
# 20 seconds, and the one program that uses it (export/read_back.py) treats what it gets as Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
