"""How much work a pickle asks for, found without unpickling it.

A few hundred bytes can ask for work without end: a tuple of a tuple twice, and so on sixty times,
is a small object, but using it as a key of a mapping hashes it, and that visits 2^60 tuples. Here
the pickle's stack is followed with the size of each object in place of the object.
"""

import io
import pickletools
from typing import Any

MOST_OPERATIONS = 1_000_000
"""In a pickle; that of a checkpoint of hundreds of tensors with its optimizer has some 50,000."""
MOST_PARTS = 100_000
"""In an object that could be a key, its parts' parts counted each time they appear."""
MOST_LEVELS = 100
"""How deep objects may lie in one another; a tensor in a state_dict lies 5 deep."""

# Objects that cannot be hashed: their parts are not visited with them.
_UNHASHABLE = {
    "EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_SET", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "ADDITEMS", "BYTEARRAY8",
}  # fmt: skip
_Size = tuple[int, int]  # parts and levels
_SMALL: _Size = (1, 1)


def find_unbounded_work(stream: io.BytesIO) -> str | None:
    """What is wrong with the next pickle of a stream, which is left behind it; None if nothing is.

    Raises:
      Exception: the pickle is broken, in as many ways as pickletools knows.
    """
    stack: list[_Size | None] = []  # None: a mark
    memo: dict[int, _Size] = {}
    operations = 0
    for opcode, argument, position in pickletools.genops(stream):
        operations += 1
        if operations > MOST_OPERATIONS:
            return f"more than {MOST_OPERATIONS} operations"
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            # the C unpickler allocates as many memo slots as the largest index asks for
            if index > (position or 0):
                return f"memo index {argument}"
            memo[index] = _top(stack)
            continue
        if "GET" in name:
            stack.append(memo.get(int(argument or 0), _SMALL))
            continue
        if name == "DUP":
            stack.append(_top(stack))
            continue
        popped = _pop(stack, opcode)
        if name in ("POP", "POP_MARK", "STOP"):
            continue
        for _ in opcode.stack_after[:1]:
            size = _SMALL if name in _UNHASHABLE else _together(popped)
            if size[0] > MOST_PARTS or size[1] > MOST_LEVELS:
                return "objects nested without end"
            stack.append(size if name != "MARK" else None)
    return None


def _top(stack: list[_Size | None]) -> _Size:
    return (stack[-1] if stack else None) or _SMALL


def _pop(stack: list[_Size | None], opcode: Any) -> list[_Size]:
    """Takes from the stack what an operation does, down to a mark where it has one."""
    popped: list[_Size] = []
    if pickletools.markobject in opcode.stack_before:
        while stack and (size := stack.pop()) is not None:
            popped.append(size)
        singles = opcode.stack_before.index(pickletools.markobject)
    else:
        singles = len(opcode.stack_before)
    for _ in range(min(singles, len(stack))):
        popped.append(stack.pop() or _SMALL)
    return popped


def _together(parts: list[_Size]) -> _Size:
    """The size of an object made of parts."""
    return 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
