"""What numba's own loops do not say: vectors of several lanes, and memory that will be read soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 32  # rows are a multiple of it long, so that no vector loop ends in single steps; `mix_lines` sums so many


def _address(context: Any, builder: Any, kind: Any, array: Any, line: Any, places: Any) -> Any:
    """Where so many bytes into one line of an array are."""
    made = context.make_array(kind)(context, builder, array)
    stride = cgutils.unpack_tuple(builder, made.strides, kind.ndim)[0]
    start = builder.bitcast(made.data, ir.IntType(8).as_pointer())
    return builder.gep(start, [builder.add(builder.mul(line, stride), places)])


class _Numbers:
    """Vectors of one float type in memory, wherever they begin."""

    def __init__(self, context: Any, builder: Any, kind: Any) -> None:
        self.builder, self.number = builder, context.get_value_type(kind)
        self.size = context.get_abi_sizeof(self.number)

    def load(self, address: Any, n: int) -> Any:
        """The n numbers from an address on."""
        row = self.builder.load(self.builder.bitcast(address, ir.VectorType(self.number, n).as_pointer()))
        row.align = self.size
        return row

    def store(self, row: Any, address: Any) -> None:
        """Write the numbers of a vector from an address on."""
        self.builder.store(row, self.builder.bitcast(address, row.type.as_pointer())).align = self.size

    def places(self, count: Any) -> Any:
        """Bytes that so many numbers take."""
        return self.builder.mul(count, count.type(self.size))

    def spread(self, number: Any, n: int) -> Any:
        """One number in every lane."""
        none = ir.Constant(ir.VectorType(self.number, n), ir.Undefined)
        return _shuffle(self.builder, self.builder.insert_element(none, number, ir.IntType(32)(0)), none, [0] * n)


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    """Lanes of two vectors by number, those of `b` counted on from those of `a`."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(picks)), picks))


def _columns(builder: Any, rows: list[Any]) -> list[Any]:
    """The four columns of eight rows of four numbers: two rounds of shuffles, none across the middle of a vector."""
    halves = [_shuffle(builder, rows[i], rows[i + 4], list(range(8))) for i in range(4)]
    by_one = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    by_two = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    pairs = [[_shuffle(builder, *halves[i : i + 2], picks) for i in (0, 2)] for picks in by_one]
    return [_shuffle(builder, *pair, picks) for pair in pairs for picks in by_two]


def _transposer() -> Callable[..., None]:
    """`transpose_lines(table, lines, t, columns, block)`: block[k, t + i] = table[lines[t + i], k], i < 8, k < columns.

    table : (n_lines, n_columns) float, C-ordered; lines : (n_places,) uint32; columns : a multiple of 4; block :
    (n_columns, n_places) float, C-ordered, of the table's type. Numbers are read by four and written by eight;
    nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(table, lines, t, columns, block):
            block[:columns, t : t + 8] = table[lines[t : t + 8], :columns].T

        return in_python

    def transpose_lines(typing_context, table, lines, t, columns, block):
        def generate(context, builder, signature, values):
            numbers, whole = _Numbers(context, builder, table.dtype), values[2].type
            listed = context.make_array(lines)(context, builder, values[1]).data
            starts = []
            for i in range(8):
                line = builder.load(builder.gep(listed, [builder.add(values[2], whole(i))]))
                starts.append(_address(context, builder, table, values[0], builder.zext(line, whole), whole(0)))
            with cgutils.for_range_slice(builder, whole(0), values[3], whole(4)) as (k, _):
                rows = [numbers.load(builder.gep(start, [numbers.places(k)]), 4) for start in starts]
                for j, column in enumerate(_columns(builder, rows)):
                    row = builder.add(k, whole(j))
                    numbers.store(column, _address(context, builder, block, values[4], row, numbers.places(values[2])))
            return context.get_dummy_value()

        return types.void(table, lines, types.intp, types.intp, block), generate

    return intrinsic(transpose_lines)


def _mixer() -> Callable[..., None]:
    """`mix_lines(block, lines, weights, count, t, out)`: out[t + i] = sum_a weights[a] block[lines[a], t + i].

    block : (n_lines, n_places) float, C-ordered; lines : (count or more,) uint32; weights, out : of the block's type.
    For i < LANES; the sum runs over a < count in their order. Nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(block, lines, weights, count, t, out):
            out[t : t + LANES] = weights[:count] @ block[lines[:count], t : t + LANES]

        return in_python

    def mix_lines(typing_context, block, lines, weights, count, t, out):
        def generate(context, builder, signature, values):
            numbers, whole = _Numbers(context, builder, block.dtype), values[3].type
            listed, weighed = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in ((lines, values[1]), (weights, values[2]))
            )
            parts = [numbers.places(builder.add(values[4], whole(start))) for start in range(0, LANES, 8)]
            zero = ir.Constant(ir.VectorType(numbers.number, 8), [0.0] * 8)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in parts]
            with cgutils.for_range_slice(builder, whole(0), values[3], whole(1)) as (a, _):
                line = builder.zext(builder.load(builder.gep(listed, [a])), whole)
                weight = numbers.spread(builder.load(builder.gep(weighed, [a])), 8)
                for part, total in zip(parts, sums, strict=True):
                    row = numbers.load(_address(context, builder, block, values[0], line, part), 8)
                    more = builder.fmul(weight, row, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), more, flags=["contract"]), total)
            for part, total in zip(parts, sums, strict=True):
                numbers.store(builder.load(total), _address(context, builder, out, values[5], whole(0), part))
            return context.get_dummy_value()

        return types.void(block, lines, weights, types.intp, types.intp, out), generate

    return intrinsic(mix_lines)


def _taker() -> Callable[..., None]:
    """`take_line(block, a, c, part, k)`: block[a, k + j] -= part * block[c, k + j] for j < 8.

    block : (n_rows, n_columns) float, C-ordered; part : of its type. Nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(block, a, c, part, k):
            block[a, k : k + 8] -= part * block[c, k : k + 8]

        return in_python

    def take_line(typing_context, block, a, c, part, k):
        def generate(context, builder, signature, values):
            numbers = _Numbers(context, builder, block.dtype)
            own, other = (
                _address(context, builder, block, values[0], line, numbers.places(values[4])) for line in values[1:3]
            )
            taken = builder.fmul(numbers.spread(values[3], 8), numbers.load(other, 8), flags=["contract"])
            numbers.store(builder.fsub(numbers.load(own, 8), taken, flags=["contract"]), own)
            return context.get_dummy_value()

        return types.void(block, types.intp, types.intp, block.dtype, types.intp), generate

    return intrinsic(take_line)


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


transpose_lines, mix_lines, take_line, prefetch = _transposer(), _mixer(), _taker(), _prefetcher()
