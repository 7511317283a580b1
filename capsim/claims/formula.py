"""Formulas over named numbers: + - * / ** and brackets, nothing else."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

BINARY: dict[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def names(formula: str) -> set[str]:
    """The numbers that a formula wants.

    Raises
    ------
    ValueError
        It is no such formula.
    """
    try:
        tree = ast.parse(formula, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"not a formula: '{formula}'") from error
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.Name, ast.Load, ast.Constant, *BINARY)
    for node in ast.walk(tree):
        if not isinstance(node, allowed) or (isinstance(node, ast.Constant) and type(node.value) not in (int, float)):
            raise ValueError(f"a formula has names, numbers, + - * / ** and brackets only: '{formula}'")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def evaluate(formula: str, numbers: Mapping[str, float]) -> float:
    """The value of a formula that ``names`` took.

    Raises
    ------
    ValueError
        It has none for these numbers: a division by 0, a root of a negative number, or one past all bounds.
    """
    try:
        return _value(ast.parse(formula, mode="eval").body, numbers)
    except (ArithmeticError, TypeError) as error:
        given = ", ".join(f"{name} = {number:g}" for name, number in numbers.items())
        raise ValueError(f"the formula has no value for {given}") from error


def _value(node: ast.expr, numbers: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return float(BINARY[type(node.op)](_value(node.left, numbers), _value(node.right, numbers)))
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, numbers)
    if isinstance(node, ast.Name):
        return numbers[node.id]
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]
