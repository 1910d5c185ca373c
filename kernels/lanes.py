"""What numba's own loops do not say: vectors of several lanes, and memory that will be read soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _address(context: Any, builder: Any, kind: Any, array: Any, line: Any, places: Any) -> Any:
    """Where so many bytes into one line of an array are."""
    made = context.make_array(kind)(context, builder, array)
    stride = cgutils.unpack_tuple(builder, made.strides, kind.ndim)[0]
    start = builder.bitcast(made.data, ir.IntType(8).as_pointer())
    return builder.gep(start, [builder.add(builder.mul(line, stride), places)])


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
            numbers = context.make_array(signature.args[1])(context, builder, values[1])
            at_t, at_k = values[2], values[3]

            def address(at: int, line: Any, column: Any) -> Any:
                places = builder.mul(column, column.type(size))
                found = _address(context, builder, signature.args[at], values[at], line, places)
                return builder.bitcast(found, vector.as_pointer())

            rows = []
            for i in range(n):
                number = builder.load(builder.gep(numbers.data, [builder.add(at_t, at_t.type(i))]))
                row = builder.load(address(0, builder.zext(number, at_k.type), at_k))
                row.align = size
                rows.append(row)
            for j, row in enumerate(_interleave(builder, rows)):
                builder.store(row, address(4, builder.add(at_k, at_k.type(j)), at_t)).align = size
            return context.get_dummy_value()

        return types.void(table, lines, types.intp, types.intp, block), generate

    return intrinsic(transpose)


transpose_4, transpose_8 = _transposer(4), _transposer(8)


def _prefetcher() -> Callable[..., None]:
    """`prefetch(array, line, places)`: fetch the cache line that lies so many bytes into array[line]."""
    if numba.config.DISABLE_JIT:
        return lambda array, line, places: None

    def prefetch(typing_context, array, line, places):
        def generate(context, builder, signature, values):
            number = ir.IntType(32)
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            address = _address(context, builder, signature.args[0], *values)
            builder.call(call, [address, number(0), number(3), number(1)])  # to be read, kept, data
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp), generate

    return intrinsic(prefetch)


prefetch = _prefetcher()
