"""Copying runs of rows, compiled; imported only where numba is installed.

It works on addresses, so that one call copies all columns out of any number of segments.
"""

from numba.core import cgutils, types
from numba.extending import intrinsic

from replay.compiling import compiled


@intrinsic
def _copy_bytes(typing_context, target, source, count):
    """As memcpy, which it becomes."""

    def generate(context, builder, signature, arguments):
        to, of = (builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _copy_runs(sources, targets, sizes, runs, first, end):
    for number in range(first, end):
        segment, begin, length, place = runs[0, number], runs[1, number], runs[2, number], runs[3, number]
        for column in range(len(sizes)):
            size = sizes[column]
            to, of = targets[column] + place * size, sources[segment, column] + begin * size
            _copy_bytes(to, of, length * size)  # type: ignore[call-arg]  # numba gives the context


copy_runs = compiled(_copy_runs, "void(int64[:, ::1], int64[::1], int64[::1], int64[:, ::1], int64, int64)")
"""Copies runs `first` to `end` (not included) of `replay.gather.Plan`.

Args:
    sources: (segments, columns) addresses of each segment's row 0.
    targets: (columns,) addresses of the batch's row 0.
    sizes: (columns,) bytes of a row.
    runs: (4, n): segment, first row there, length, first row in the batch.
    first: of the runs.
    end: of the runs.
"""
