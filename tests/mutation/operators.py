"""Faults, one place of the syntax tree each: what a slip of the hand or of the mind leaves behind.

    comparison   <  becomes  <= (the boundary) and >= (the opposite);  == and !=, in and not in, is and is not swap
    arithmetic   + and -, * and /, << and >>, & and | swap;  //, ** and % become *, ^ becomes &;  @ is left alone
    sign         -x becomes x;  += and -=, *= and /= swap
    constant     n becomes n + 1, a float twice itself (0.0 becomes 1.0), True and False swap
    logic        and and or swap;  not x becomes x;  the condition of if, while and a if c else b is turned round
    return       return x becomes return None
    omission     a call, an assignment to an element or attribute, or an update in place is left out

Texts, docstrings, annotations, decorators, imports and `raise` (what an error says) are left alone.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}


class Fault(NamedTuple):
    """One change of a source. Lines count from 1; `start` and `end` are offsets of the replaced text in bytes."""

    kind: str
    within: str  # the function or class, "" at the top of the module
    line: int
    statement: tuple[int, int]  # first and last line of the statement it is in
    start: int
    end: int
    before: str
    after: str
    number: int = 1  # of the faults in one function that read the same

    def apply(self, source: str) -> str:
        """The source with the fault in it."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    @property
    def key(self) -> str:
        """What the fault is, wherever in the file it stands."""
        which = f" (number {self.number})" if self.number > 1 else ""
        return f"{self.within}: {self.before} -> {self.after}{which}"


def faults(source: str) -> list[Fault]:
    """All faults of a source, in its order."""
    found, seen = [], Counter[str]()
    for fault in sorted(_Finder(source).found, key=lambda fault: (fault.start, fault.end, fault.after)):
        seen[fault.key] += 1
        found.append(fault._replace(number=seen[fault.key]))
    return found


class _Finder:
    """Walks the tree and remembers the function and the statement it is in."""

    def __init__(self, source: str) -> None:
        self.raw = source.encode()
        lengths = [len(line) for line in self.raw.splitlines(keepends=True)]
        self.offsets = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
        self.found: list[Fault] = []
        self.scope: list[str] = []
        self.statement = (1, 1)
        self._visit(ast.parse(source))

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert, ast.Global)):
            return
        named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if named:
            self.scope.append(node.name)
        outer = self.statement
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)  # of a compound statement: its first lines alone
            self.statement = (node.lineno, body[0].lineno - 1 if isinstance(body, list) else node.end_lineno)
            self.statement = (self.statement[0], max(self.statement))
        for kind, replaced, changed in _faults_at(node):
            self._add(kind, replaced, changed)
        for child in _children(node):
            self._visit(child)
        self.statement = outer
        if named:
            self.scope.pop()

    def _add(self, kind: str, node: ast.AST, changed: str) -> None:
        start = self.offsets[node.lineno - 1] + node.col_offset
        end = self.offsets[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(self.raw[start:end].decode().split())
        self.found.append(Fault(kind, ".".join(self.scope), node.lineno, self.statement, start, end, before, changed))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts in which a fault is looked for."""
    left_out = {"annotation", "returns", "decorator_list", "type_params"}
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for name, value in ast.iter_fields(node):
        if name not in left_out:
            parts = value if isinstance(value, list) else [value]
            yield from (part for part in parts if isinstance(part, ast.AST))


def _faults_at(node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """(kind, the node whose text is replaced, by what) of one node, its children left to themselves."""
    match node:
        case ast.Compare(left, [operator], [right]):
            for other in COMPARISONS[type(operator)]:
                yield "comparison", node, _text(ast.Compare(left, [other()], [right]))
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC and not _is_text(left):
            yield "arithmetic", node, _text(ast.BinOp(left, ARITHMETIC[type(operator)](), right))
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", node, _text(operand)
        case ast.UnaryOp(ast.Not(), operand):
            yield "logic", node, _text(operand)
        case ast.BoolOp(operator, values):
            yield "logic", node, _text(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
        case ast.Constant(bool() as value):
            yield "constant", node, str(not value)
        case ast.Constant(int() as value):
            yield "constant", node, str(value + 1)
        case ast.Constant(float() as value):
            yield "constant", node, str(2 * value or 1.0)
        case ast.AugAssign(target, operator, value):
            if type(operator) in ARITHMETIC:
                yield "sign", node, ast.unparse(ast.AugAssign(target, ARITHMETIC[type(operator)](), value))
            yield "omission", node, "pass"
        case ast.Assign([ast.Subscript() | ast.Attribute()]) | ast.Expr(ast.Call()):
            yield "omission", node, "pass"
        case ast.Return(value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", node, "return None"
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            if not isinstance(test, (ast.Compare, ast.BoolOp)) and not _is_not(test):
                yield "logic", test, f"(not {ast.unparse(test)})"


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
