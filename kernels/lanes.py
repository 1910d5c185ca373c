"""Vectors of several lanes, where numba's loops would go number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    """Lanes of two vectors by number, those of `b` counted on from those of `a`."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(picks)), picks))


def _interleave(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of n vectors of n lanes, n a power of 2: log2(n) perfect shuffles of the halves."""
    n = len(rows)
    low = [lane + side for lane in range(n // 2) for side in (0, n)]
    high = [lane + n // 2 for lane in low]
    for _ in range(n.bit_length() - 1):
        rows = [_shuffle(builder, rows[i], rows[i + n // 2], picks) for i in range(n // 2) for picks in (low, high)]
    return rows


def _transposer(n: int) -> Callable[..., None]:
    """`transpose_n(table, lines, t, k, block)`: block[k + j, t + i] = table[lines[t + i], k + j] for i, j below n.

    table : (n_lines, n_columns) float, C-ordered; lines : (n_places,) uint32; block : (n_columns, n_places) float,
    C-ordered, of the table's type. n numbers of a line are read, and n of a row written, at once; nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(table, lines, t, k, block):
            block[k : k + n, t : t + n] = table[lines[t : t + n], k : k + n].T

        return in_python

    def transpose(typing_context, table, lines, t, k, block):
        def generate(context, builder, signature, values):
            vector = ir.VectorType(context.get_value_type(table.dtype), n)
            size = context.get_abi_sizeof(vector.element)
            source, numbers, target = (
                context.make_array(signature.args[at])(context, builder, values[at]) for at in (0, 1, 4)
            )
            at_t, at_k = values[2], values[3]

            def address(array: Any, line: Any, column: Any) -> Any:
                stride = cgutils.unpack_tuple(builder, array.strides, 2)[0]
                places = builder.add(builder.mul(line, stride), builder.mul(column, line.type(size)))
                start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
                return builder.bitcast(builder.gep(start, [places]), vector.as_pointer())

            rows = []
            for i in range(n):
                number = builder.load(builder.gep(numbers.data, [builder.add(at_t, at_t.type(i))]))
                row = builder.load(address(source, builder.zext(number, at_k.type), at_k))
                row.align = size
                rows.append(row)
            for j, row in enumerate(_interleave(builder, rows)):
                builder.store(row, address(target, builder.add(at_k, at_k.type(j)), at_t)).align = size
            return context.get_dummy_value()

        return types.void(table, lines, types.intp, types.intp, block), generate

    return intrinsic(transpose)


transpose_4, transpose_8 = _transposer(4), _transposer(8)
