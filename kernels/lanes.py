"""What numba's own loops do not say: vectors of several lanes, and memory that will be read soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

PIECE = 16  # the numbers of the widest vector there is
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
        wide = "+avx512f" in context.codegen().magic_tuple()[2]  # the features of the processor
        self.lanes = (64 if wide else 32) // self.size  # numbers of its widest vector

    def load(self, address: Any, n: int | None = None) -> Any:
        """The n numbers from an address on; by default a vector of them."""
        n = n or self.lanes
        row = self.builder.load(self.builder.bitcast(address, ir.VectorType(self.number, n).as_pointer()))
        row.align = self.size
        return row

    def store(self, row: Any, address: Any) -> None:
        """Write the numbers of a vector from an address on."""
        self.builder.store(row, self.builder.bitcast(address, row.type.as_pointer())).align = self.size

    def room(self, n: int) -> Any:
        """Where a sum of n lanes is kept, from 0 on: in a register, in the end."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(ir.VectorType(self.number, n), [0.0] * n))

    def add_product(self, a: Any, b: Any, total: Any) -> None:
        """Add a * b to a sum in its room, in one instruction."""
        more = self.builder.fmul(a, b, flags=["contract"])
        self.builder.store(self.builder.fadd(self.builder.load(total), more, flags=["contract"]), total)

    def places(self, count: Any) -> Any:
        """Bytes that so many numbers take."""
        return self.builder.mul(count, count.type(self.size))

    def spread(self, number: Any, n: int) -> Any:
        """One number in every lane."""
        none = ir.Constant(ir.VectorType(self.number, n), ir.Undefined)
        return _shuffle(self.builder, self.builder.insert_element(none, number, ir.IntType(32)(0)), none, [0] * n)


def _least(builder: Any, a: Any, b: Any) -> Any:
    """The lesser of two whole numbers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


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


def _add_up(builder: Any, rows: list[Any]) -> list[Any]:
    """The sums over the lanes of 4 or 8 vectors, in order, in vectors of 2, 4 or 8: lanes far apart are added first."""

    def fold(row: Any) -> Any:
        n = row.type.count
        return builder.fadd(*(_shuffle(builder, row, row, list(range(start, start + n // 2))) for start in (0, n // 2)))

    rows = [fold(row) if row.type.count > 8 else row for row in rows]
    n = rows[0].type.count
    half = n // 2
    picks = [[start + lane + side for start in (0, n, half, n + half) for lane in range(0, half, 2)] for side in (0, 1)]
    summed = 1  # neighbours are added, pair of vectors by pair of vectors, none across the middle of a vector
    while summed < half:
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [builder.fadd(*(_shuffle(builder, a, b, lanes) for lanes in picks)) for a, b in pairs]
        summed *= 2
    return [fold(row) for row in rows]


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
            sums = [numbers.room(8) for _ in parts]
            with cgutils.for_range_slice(builder, whole(0), values[3], whole(1)) as (a, _):
                line = builder.zext(builder.load(builder.gep(listed, [a])), whole)
                weight = numbers.spread(builder.load(builder.gep(weighed, [a])), 8)
                for part, total in zip(parts, sums, strict=True):
                    row = numbers.load(_address(context, builder, block, values[0], line, part), 8)
                    numbers.add_product(weight, row, total)
            for part, total in zip(parts, sums, strict=True):
                numbers.store(builder.load(total), _address(context, builder, out, values[5], whole(0), part))
            return context.get_dummy_value()

        return types.void(block, lines, weights, types.intp, types.intp, out), generate

    return intrinsic(mix_lines)


def _dotter() -> Callable[..., None]:
    """`dot_lines(block, first, count, x, length, out)`: out[first + j] = sum_t block[first + j, t] x[t] for j < 8.

    In the place of lines from `count` on stands the last one; `out` has room for them. block : (n_lines, length)
    float, C-ordered; x, out : of its type; length : a multiple of `PIECE`. Nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(block, first, count, x, length, out):
            lines = np.minimum(np.arange(first, first + 8), count - 1)
            out[first : first + 8] = block[lines, :length] @ x[:length]

        return in_python

    def dot_lines(typing_context, block, first, count, x, length, out):
        def generate(context, builder, signature, values):
            numbers, whole = _Numbers(context, builder, block.dtype), values[1].type
            factors = context.make_array(x)(context, builder, values[3]).data
            factors = builder.bitcast(factors, ir.IntType(8).as_pointer())
            last = builder.sub(values[2], whole(1))
            lines = [_least(builder, builder.add(values[1], whole(j)), last) for j in range(8)]
            rows = [_address(context, builder, block, values[0], line, whole(0)) for line in lines]
            sums = [numbers.room(numbers.lanes) for _ in rows]  # in registers: at most eight
            with cgutils.for_range_slice(builder, whole(0), values[4], whole(numbers.lanes)) as (t, _):
                part = numbers.places(t)
                factor = numbers.load(builder.gep(factors, [part]))
                for row, total in zip(rows, sums, strict=True):
                    numbers.add_product(numbers.load(builder.gep(row, [part])), factor, total)
            for j, found in enumerate(_add_up(builder, [builder.load(total) for total in sums])):
                line = builder.add(values[1], whole(j * found.type.count))
                numbers.store(found, _address(context, builder, out, values[5], whole(0), numbers.places(line)))
            return context.get_dummy_value()

        return types.void(block, types.intp, types.intp, x, types.intp, out), generate

    return intrinsic(dot_lines)


def _crosser() -> Callable[..., None]:
    """`cross_lines(block, lines, count, a, b, weights, length, out)`: a tile of the weighted products of some lines.

    out[i, b + j] = sum_t weights[t] block[lines[i], t] block[lines[b + j], t] for i = a, a + 1 and j < 4; in the place
    of lines from `count` on stands the last one. block : (n_lines, length) float, C-ordered; weights, out : of its
    type; length : a multiple of `PIECE`. Nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(block, lines, count, a, b, weights, length, out):
            rows = block[lines[np.minimum((a, a + 1), count - 1)], :length]
            columns = block[lines[np.minimum(np.arange(b, b + 4), count - 1)], :length]
            out[np.minimum((a, a + 1), count - 1), b : b + 4] = rows * weights[:length] @ columns.T

        return in_python

    def cross_lines(typing_context, block, lines, count, a, b, weights, length, out):
        def generate(context, builder, signature, values):
            numbers, whole = _Numbers(context, builder, block.dtype), values[2].type
            listed, weighed = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in ((lines, values[1]), (weights, values[5]))
            )
            last = builder.sub(values[2], whole(1))

            def begin(line: Any) -> Any:
                """Where it begins."""
                row = builder.zext(builder.load(builder.gep(listed, [line])), whole)
                return _address(context, builder, block, values[0], row, whole(0))

            own, others = (
                [_least(builder, builder.add(start, whole(i)), last) for i in range(n_lines)]
                for start, n_lines in ((values[3], 2), (values[4], 4))
            )
            rows, columns = [begin(line) for line in own], [begin(line) for line in others]
            sums = [[numbers.room(numbers.lanes) for _ in columns] for _ in rows]
            weighed = builder.bitcast(weighed, ir.IntType(8).as_pointer())
            with cgutils.for_range_slice(builder, whole(0), values[6], whole(numbers.lanes)) as (t, _):
                part = numbers.places(t)
                weight = numbers.load(builder.gep(weighed, [part]))
                scaled = [builder.fmul(weight, numbers.load(builder.gep(row, [part]))) for row in rows]
                for j, column in enumerate(columns):
                    other = numbers.load(builder.gep(column, [part]))
                    for line, totals in zip(scaled, sums, strict=True):
                        numbers.add_product(line, other, totals[j])
            for i, totals in enumerate(sums):
                found = _add_up(builder, [builder.load(total) for total in totals])
                for j, part in enumerate(found):
                    column = numbers.places(builder.add(values[4], whole(j * part.type.count)))
                    numbers.store(part, _address(context, builder, out, values[7], own[i], column))
            return context.get_dummy_value()

        return types.void(block, lines, types.intp, types.intp, types.intp, weights, types.intp, out), generate

    return intrinsic(cross_lines)


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


def _copier() -> Callable[..., None]:
    """`copy_line(block, out, a, k)`: out[a, k + j] = block[a, k + j] for j < 8.

    block, out : (n_rows, n_columns) float of one type, C-ordered. Nothing is checked.
    """
    if numba.config.DISABLE_JIT:

        def in_python(block, out, a, k):
            out[a, k : k + 8] = block[a, k : k + 8]

        return in_python

    def copy_line(typing_context, block, out, a, k):
        def generate(context, builder, signature, values):
            numbers = _Numbers(context, builder, block.dtype)
            place = values[2], numbers.places(values[3])
            source = _address(context, builder, block, values[0], *place)
            numbers.store(numbers.load(source, 8), _address(context, builder, out, values[1], *place))
            return context.get_dummy_value()

        return types.void(block, out, types.intp, types.intp), generate

    return intrinsic(copy_line)


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
cross_lines, dot_lines, copy_line = _crosser(), _dotter(), _copier()
